"""`make schemas CRDS=FOLDER`: the schemas that raystack ships, from KubeRay's own CRDs.

Descriptions are dropped. A schema that occurs more than once is written once, under the name
of the first field that has it; a definition takes one line of the file, so that a diff shows what a release
changed.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from raystack.kuberay.lint.schemas import FILE, NESTED, PREFIX

Schema = dict[str, Any]
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
VERSIONS = ("v1", "v1alpha1")
"""Versions of the API, the newest first."""
SMALL = 60
"""A schema of at most so many characters is repeated: a reference would not be shorter."""
NAMES = {
    ("RayCluster", "spec"): "RayClusterSpec",
    ("RayCluster", "template"): "PodTemplateSpec",
    ("RayCluster", "headService"): "Service",
    ("RayCluster", "divisor"): "Quantity",
    ("RayCluster", "annotations"): "StringMap",
    ("RayCluster", "add"): "StringList",
    ("RayCronJob", "jobTemplate"): "RayJobSpec",
}
"""The names of the Go types, where a reader will look for them."""


def main() -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("crds", type=Path, help="folder with KubeRay's CRDs, e.g. config/crd/bases")
    text = derived(parser.parse_args().crds)
    FILE.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{FILE}: {len(text):,} characters\n")
    return 0


def derived(folder: Path) -> str:
    """Text of the file, from a folder with CRDs."""
    crds = [yaml.load(file.read_text(encoding="utf-8"), Loader=LOADER) for file in folder.glob("*.yaml")]
    small = {crd["spec"]["names"]["kind"]: _compact(crd) for crd in crds}
    small = dict(sorted(small.items()))
    versions = [(kind, version) for kind, crd in small.items() for version in crd["spec"]["versions"]]
    versions.sort(key=lambda each: VERSIONS.index(each[1]["name"]))
    sharing = _Sharing([_schema(version) for _, version in versions])
    for kind, version in versions:
        version["schema"] = {"openAPIV3Schema": sharing.inside(_schema(version), kind, kind)}
    return _lines({"crds": small, "definitions": sharing.definitions})


def _compact(crd: Mapping[str, Any]) -> dict[str, Any]:
    """A CRD without descriptions, with its newest version first."""
    spec = {key: crd["spec"][key] for key in ("group", "names", "scope")}
    versions = sorted(crd["spec"]["versions"], key=lambda version: VERSIONS.index(version["name"]))
    return {
        "apiVersion": crd["apiVersion"],
        "kind": crd["kind"],
        "metadata": {"name": crd["metadata"]["name"]},
        "spec": {**spec, "versions": [_plain(version) for version in versions]},
    }


def _plain(version: Mapping[str, Any]) -> dict[str, Any]:
    columns = [
        {key: value for key, value in column.items() if key != "description"}
        for column in version.get("additionalPrinterColumns", ())
    ]
    return {
        **version,
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": _bare(_schema(version))},
    }


def _schema(version: Mapping[str, Any]) -> Schema:
    found: Schema = version["schema"]["openAPIV3Schema"]
    return found


def _bare(schema: Schema) -> Schema:
    """Without descriptions. Fields that are named `description` stay."""
    bare = {key: value for key, value in schema.items() if key != "description"}
    for key in NESTED:
        if isinstance(schema.get(key), dict):
            bare[key] = _bare(schema[key])
    if "properties" in schema:
        bare["properties"] = {name: _bare(below) for name, below in schema["properties"].items()}
    return bare


class _Sharing:
    """Schemas that occur more than once, each under a name."""

    def __init__(self, roots: list[Schema]) -> None:
        self._uses: Counter[str] = Counter()
        self._names: dict[str, str] = {}
        self.definitions: dict[str, Schema] = {}
        for root in roots:
            self._count(root)

    def _count(self, schema: Schema) -> None:
        text = _text(schema)
        self._uses[text] += 1
        if self._uses[text] == 1:
            for _, below in _below(schema):
                self._count(below)

    def inside(self, schema: Schema, kind: str, name: str) -> Schema:
        """The schema, with references in it."""
        small = dict(schema)
        if "properties" in schema:
            small["properties"] = {
                field: self._referred(below, kind, field) for field, below in schema["properties"].items()
            }
        for key in NESTED:
            if isinstance(schema.get(key), dict):
                small[key] = self._referred(
                    schema[key], kind, name[:-1] if name.endswith("s") else f"{name}Item"
                )
        return small

    def _referred(self, schema: Schema, kind: str, field: str) -> Schema:
        text = _text(schema)
        if self._uses[text] == 1 or len(text) <= SMALL:
            return self.inside(schema, kind, field)
        if text not in self._names:
            wanted = NAMES.get((kind, field), field[0].upper() + field[1:])
            taken = sum(name.rstrip("0123456789") == wanted for name in self.definitions)
            name = self._names[text] = f"{wanted}{taken + 1}" if taken else wanted
            self.definitions[name] = {}  # its place, before those that are found inside of it
            self.definitions[name] = self.inside(schema, kind, field)
        return {"$ref": PREFIX + self._names[text]}


def _below(schema: Schema) -> Iterator[tuple[str, Schema]]:
    yield from schema.get("properties", {}).items()
    yield from ((key, schema[key]) for key in NESTED if isinstance(schema.get(key), dict))


def _text(schema: Schema) -> str:
    return json.dumps(schema, sort_keys=True)


def _lines(whole: Mapping[str, Mapping[str, Any]]) -> str:
    """JSON with a line for each CRD and each definition."""
    parts = []
    for name, entries in whole.items():
        rows = [
            f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}" for key, value in entries.items()
        ]
        parts.append(f'"{name}":{{\n' + ",\n".join(rows) + "\n}")
    return "{" + ",\n".join(parts) + "}\n"


if __name__ == "__main__":
    sys.exit(main())
