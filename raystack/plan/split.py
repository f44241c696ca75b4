"""The applications of versions that are beside a model."""

import hashlib
from collections.abc import Iterator

from raystack.config.serving import Served, Serving
from raystack.config.split import Split
from raystack.config.telemetry import Drift, Payloads
from raystack.errors import Problem

DIGITS = 6


def application(model: str, reference: str) -> str:
    """Return the name of the Serve application for a version beside a model: `model@7-3fa2c1`.

    No model can have it, because '@' is not allowed in a model's name.
    """
    digest = hashlib.sha256(reference.encode()).hexdigest()[:DIGITS]
    version = f"{reference.rpartition('/')[2]}-" if reference.startswith("models:/") else ""
    return f"{model}@{version}{digest}"


def model_of(name: str) -> str | None:
    """Return the model that an application's version is beside; None for other applications."""
    model, beside, _ = name.rpartition("@")
    return model if beside else None


def beside(serving: Serving, reference: str) -> Serving:
    """Return the section of a version that is beside a model."""
    assert serving.split is not None
    own: dict[str, object] = {"model": reference, "split": None, "payloads": Payloads(), "drift": Drift()}
    if serving.split.replicas is not None:
        own |= {"replicas": serving.split.replicas, "autoscaling": None}
    return serving.model_copy(update=own)


def split_problems(serving: Serving) -> Iterator[Problem]:
    """Yield what is wrong with the splits of a section."""
    several = bool(serving.models or serving.multiplexed)
    if several and serving.split is not None:
        rule, remedy = "is of one model, and several are named", "move it to serving.models.NAME.split"
        yield Problem("serving.split", rule=rule, remedy=remedy)
    served: dict[str, Served] = dict(serving.models) if several else {"": serving}
    for name, own in served.items():
        where = f"serving.models.{name}" if name else "serving"
        if own.split is None:
            continue
        if own.graph is not None:
            rule, remedy = "a graph has no versions beside each other", "update it in place"
            yield Problem(f"{where}.split", rule=rule, remedy=remedy)
        yield from _of_split(where, own.split, own.model)


def _of_split(where: str, split: Split, model: str | None) -> Iterator[Problem]:
    if model is not None and model in split.references:
        rule = "is the version that is served, which has the rest of the requests"
        yield Problem(f"{where}.split", rule=rule, got=model, remedy="drop it")
