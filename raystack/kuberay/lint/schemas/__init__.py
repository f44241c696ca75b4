"""KubeRay's CRDs without descriptions, for linting without a cluster.

`make schemas CRDS=FOLDER` derives kuberay.json from the CRDs of a release. A schema that occurs more than
once, such as that of a pod template, is stored once and referenced.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("kuberay.json")
PREFIX = "#/definitions/"
NESTED = ("items", "additionalProperties")
"""Keywords that hold one schema; `properties` holds many."""


@cache
def crds() -> Mapping[str, dict[str, Any]]:
    """Return the CRDs by kind as Kubernetes stores them, with the newest version first.

    References are resolved: a schema that is used in several places is one object.
    """
    whole = json.loads(FILE.read_text(encoding="utf-8"))
    shared: dict[str, dict[str, Any]] = whole["definitions"]
    for schema in shared.values():
        _link(schema, shared)
    found: dict[str, dict[str, Any]] = whole["crds"]
    for crd in found.values():
        for version in crd["spec"]["versions"]:
            _link(version["schema"]["openAPIV3Schema"], shared)
    return found


def _link(schema: dict[str, Any], shared: Mapping[str, dict[str, Any]]) -> None:
    """Replace references below the schema by what they refer to."""
    holders = [(schema, key) for key in NESTED] + [
        (schema["properties"], key) for key in schema.get("properties", ())
    ]
    for holder, key in holders:
        below = holder.get(key)
        if not isinstance(below, dict):
            continue
        if "$ref" in below:
            holder[key] = shared[below["$ref"].removeprefix(PREFIX)]
        else:
            _link(below, shared)
