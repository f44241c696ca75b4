"""Text of manifests: YAML with literal blocks, as one stream or as files for Kustomize."""

from collections.abc import Sequence
from typing import Any

import yaml

from raystack.kuberay.manifest.parts import Manifest

_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""Dumper of libyaml if available; both write the same text."""


class _Dumper(_Base):  # type: ignore[misc]
    """Dumper that keeps lines of strings as lines and writes no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: Any, value: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def to_yaml(manifests: Sequence[Manifest]) -> str:
    """Return all manifests as one stream, for `kubectl apply --server-side -f -`."""
    return "---\n".join(_dump(one) for one in manifests)


def kustomize(manifests: Sequence[Manifest]) -> dict[str, str]:
    """Return text by file name: a file for each object, and a kustomization.yaml."""
    files = {file_name(one): _dump(one) for one in manifests}
    listing = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(files),
    }
    return {"kustomization.yaml": _dump(listing), **files}


def file_name(manifest: Manifest) -> str:
    """Return the name of an object's own file."""
    return f"{manifest['kind'].lower()}-{manifest['metadata']['name']}.yaml"


def _dump(value: Any) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True))
