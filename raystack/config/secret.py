"""References to secrets, which are resolved only when and on the machine where they are needed.

Configs, files and logs hold the references, never the secrets.
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
    """Return `uri` unchanged. Raise UnshownError if it holds a password, which the config must not."""
    if urlsplit(uri).password:
        raise UnshownError("should not hold a password, because the config is written beside every run")
    return uri


def resolve(reference: str) -> str:
    """Return the secret of a reference. Raise ConfigError if it does not exist on this machine."""
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
    """Return a copy of nested lists and dicts with each reference replaced by its secret."""
    match node:
        case dict():
            return {key: resolve_all(value) for key, value in node.items()}
        case list():
            return [resolve_all(value) for value in node]
        case str() if node.startswith(("secret:env:", "secret:file:")):
            return resolve(node)
    return node
