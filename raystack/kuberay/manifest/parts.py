"""Building blocks of manifests: objects with metadata, and mappings without unset values."""

from collections.abc import Mapping
from typing import Any

from raystack.plan import KubePlan

Manifest = dict[str, Any]
"""Object of Kubernetes, of plain JSON values."""

EMPTY: tuple[Any, ...] = (None, {}, [], ())


def given(**values: Any) -> dict[str, Any]:
    """Return the values that are set, in their order; False and 0 count as set."""
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
    """Return an object in the plan's namespace; `content` follows its metadata."""
    metadata = given(
        name=name,
        namespace=plan.namespace,
        labels={**(labels or {}), **plan.labels},
        annotations={**plan.annotations, **(annotations or {})},
    )
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **content}
