"""KubeRay's CRDs as they are shipped, without their descriptions: what lint checks by where there is no
cluster.

`make schemas CRDS=FOLDER` derives kuberay.json from the CRDs of a release. A schema that occurs more than
once, such as that of a pod template, is written once and referred to.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("kuberay.json")
PREFIX = "#/definitions/"
NESTED = ("items", "additionalProperties")
"""What holds one schema; `properties` holds many."""


@cache
def crds() -> Mapping[str, dict[str, Any]]:
    """The CRDs by kind, as Kubernetes stores them, with ray.io/v1 alone. References are followed: a schema
    that is used in several places is one object.
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
    """Put what is referred to in the place of each reference below the schema."""
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
