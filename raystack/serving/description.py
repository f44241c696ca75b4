"""What the server says of itself and its models, in the protocol's words, for every transport."""

from collections.abc import Sequence
from typing import Any

from raystack import __version__
from raystack.serving.graph.engine import GraphEngine
from raystack.serving.protocol.contract import PLATFORM
from raystack.serving.protocol.tensors import DATATYPES
from raystack.serving.server import Model, Server, Version
from raystack.task import TensorSpec

EXTENSIONS = (
    "binary_tensor_data",
    "parameters",
    "model_configuration",
    "model_repository",
    "statistics",
    "trace",
    "logging",
)
"""Parts of the protocol beyond the required one, by Triton's names."""


def server() -> dict[str, Any]:
    """Return the server's metadata."""
    return {"name": "raystack", "version": __version__, "extensions": list(EXTENSIONS)}


def metadata(model: Model, version: Version) -> dict[str, Any]:
    """Return a version's metadata, with all versions of the model that answer."""
    versions = [name for name, each in model.present.items() if each.ready]
    return {**version.contract.metadata(), "versions": versions}


def config(version: Version) -> dict[str, Any]:
    """Return what Triton's model configuration has to say of a version that answers.

    As in Triton's, `dims` are without the batch.
    """
    contract, engine = version.contract, version.engine
    assert engine is not None
    return {
        "name": contract.name,
        "platform": PLATFORM,
        "backend": "raystack",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": engine.max_size,
        "input": _tensors(contract.signature.inputs),
        "output": _tensors(contract.signature.outputs),
        "dynamic_batching": {},
        "model_transaction_policy": {"decoupled": engine.decoupled},
    }


def statistics(server: Server, name: str | None = None, version: str | None = None) -> list[dict[str, Any]]:
    """Return the counts of one version, of all of a model, or of all models.

    Raises RequestError (404) for what the server does not have.
    """
    models = [server.model(name)] if name else server.models.values()
    return [
        counts
        for model in models
        for each in ([model.known(version)] if version else model.present.values())
        for counts in (
            {"name": model.name, "version": each.contract.version, **_counts(each)},
            *_steps(model, each),
        )
    ]


def _steps(model: Model, version: Version) -> list[dict[str, Any]]:
    """Return the counts of each step of a graph, as Triton has those of an ensemble's models."""
    if not isinstance(version.engine, GraphEngine):
        return []
    return [
        {
            "name": f"{model.name}.{part.name}",
            "version": part.version,
            **part.statistics.as_dict(part.engine.passes),
        }
        for part in version.engine.parts.values()
    ]


def _counts(version: Version) -> dict[str, Any]:
    return version.statistics.as_dict(version.engine.passes if version.engine is not None else {})


def _tensors(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    return [
        {"name": spec.name, "data_type": _type(DATATYPES[spec.dtype]), "dims": list(spec.shape[1:])}
        for spec in specs
    ]


def _type(datatype: str) -> str:
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
