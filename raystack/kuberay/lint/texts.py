"""YAML in a field of text, such as `serveConfigV2`."""

from functools import cache
from typing import Any

import yaml

from raystack.kuberay.lint.node import Node


def inside(text: Node) -> Node:
    """Return what a text says, with paths that go on from the field's; nothing if it is no YAML."""
    return Node(_parsed(text.text), text.keys)


@cache
def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None
