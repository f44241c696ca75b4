"""From a version to where it is served: what is deployed, as tags of the versions in MLflow."""

import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime

from raystack.config.names import MODEL
from raystack.config.serving import Served
from raystack.plan import ServePlan
from raystack.registry.command import RejectedError, UnavailableError
from raystack.registry.credentials import authorization

logger = logging.getLogger(__name__)


def record(plan: ServePlan, *, served: bool = True) -> None:
    """Tag the versions of a plan, whose models are pinned, with the names that they are served under.

    Other versions of the same models lose the tag, and with `served` false all do. Does nothing without
    `serving.lineage`. MLflow being away is logged, and nothing more: what is served does not need it.
    """
    models = [model for model in plan.models if model.serving.lineage]
    if not models or plan.tracking.uri is None:
        return
    from raystack.registry.deployments import write_deployment  # imports MLflow

    since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    for model in models:
        versions: defaultdict[str, set[str]] = defaultdict(set)
        for name, version in _versions(model.serving):
            versions[name].add(version)
        for name, numbers in versions.items():
            try:
                write_deployment(
                    plan.tracking.uri,
                    authorization(plan.tracking),
                    name,
                    numbers if served else (),
                    model.name,
                    f"since {since} at {model.url}",
                )
            except (UnavailableError, RejectedError) as error:
                logger.warning("serving.lineage: %s is not told where it is served: %s", name, error)


def _versions(serving: Served) -> Iterator[tuple[str, str]]:
    """Yield the name and number of each registered version that answers."""
    references = [serving.model] if serving.model else []
    if serving.graph is not None:
        references += serving.graph.models.values()
    if (split := getattr(serving, "split", None)) is not None:
        references += split.models
    for reference in references:
        if reference and (found := re.fullmatch(rf"models:/({MODEL})/(\d+)", reference)):
            yield found[1], found[2]
