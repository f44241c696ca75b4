"""Secrets stay references in every config, file and log; this reads one at the moment and on the machine that
needs it.
"""

import os
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from raystack.config.section import Pattern, UnshownError
from raystack.errors import ConfigError, Problem

Secret = Annotated[
    str,
    Pattern(
        r"^secret:(env:[A-Za-z_]\w*|file:/.+)$",
        "should be a reference, secret:env:NAME or secret:file:/path, and not the secret itself",
        secret=True,
    ),
]
"""A reference, `secret:env:NAME` or `secret:file:/path`: read where it is used and never written anywhere."""


def no_password(uri: str) -> str:
    """`uri` as it is. Raises UnshownError if it carries a password, which would be written wherever the
    config is.
    """
    if urlsplit(uri).password:
        raise UnshownError("should not hold a password, because the config is written beside every run")
    return uri


def resolve(reference: str) -> str:
    """`secret:env:NAME` or `secret:file:/path` -> the secret. Raises ConfigError where it is not there."""
    _, kind, name = reference.split(":", 2)
    if kind == "env" and name in os.environ:
        return os.environ[name].rstrip("\r\n")
    if kind == "file" and Path(name).is_file():
        return Path(name).read_text(encoding="utf-8").rstrip("\r\n")
    what = "environment variable" if kind == "env" else "file"
    raise ConfigError(
        Problem(
            reference,
            rule=f"there is no such {what} on this machine",
            remedy="set it where the process runs that needs it",
        )
    )


def resolve_all(node: Any) -> Any:
    """A copy of nested lists and dicts in which each string that is a reference is replaced by its secret."""
    match node:
        case dict():
            return {key: resolve_all(value) for key, value in node.items()}
        case list():
            return [resolve_all(value) for value in node]
        case str() if node.startswith(("secret:env:", "secret:file:")):
            return resolve(node)
    return node
