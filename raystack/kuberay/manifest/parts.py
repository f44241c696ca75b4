"""What every manifest is made of: an object with its metadata, and mappings without what is not set."""

from collections.abc import Mapping
from typing import Any

from raystack.plan import KubePlan

Manifest = dict[str, Any]
"""An object of Kubernetes, of plain JSON values."""

EMPTY: tuple[Any, ...] = (None, {}, [], ())


def given(**values: Any) -> dict[str, Any]:
    """The values that say something, in their order. False and 0 do."""
    return {
        key: value
        for key, value in values.items()
        if not any(value is empty or value == empty for empty in EMPTY)
    }


def manifest(
    plan: KubePlan,
    version: str,
    kind: str,
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    **content: Any,
) -> Manifest:
    """An object in the plan's namespace; `content` is what follows its metadata."""
    metadata = given(
        name=name,
        namespace=plan.namespace,
        labels={**(labels or {}), **plan.labels},
        annotations={**plan.annotations, **(annotations or {})},
    )
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **content}
