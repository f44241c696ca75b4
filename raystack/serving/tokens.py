"""The tokens of a server: what their references have, and have later."""

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

from raystack.config.secret import resolve
from raystack.errors import ConfigError, Problem

FILE = "secret:file:"
_TOKEN = re.compile(r"[\x21-\x7e]+")

Stamp = tuple[int, int, int]

logger = logging.getLogger(__name__)


class Token:
    """One token: the hash of what its reference has, which is read again when a file has changed."""

    def __init__(self, reference: str) -> None:
        """Read it. Raises ConfigError if it is missing, or nothing that a client can send."""
        self._reference = reference
        self._file = Path(reference.removeprefix(FILE)) if reference.startswith(FILE) else None
        self._seen = self._stamp()
        self.digest = digest(read_token(reference))

    def look(self) -> None:
        """Read it again if its file has changed. One that is missing now is still what it was."""
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self.digest = digest(read_token(self._reference))
        except ConfigError as error:
            logger.error("%s; what it was before still holds", error)

    def _stamp(self) -> Stamp | None:
        if self._file is None:
            return None
        try:
            found = os.stat(self._file)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


def read_tokens(references: Mapping[str, str]) -> list[Token]:
    """Read the tokens. Raises ConfigError that names those that cannot be read."""
    found, problems = [], []
    for name, reference in references.items():
        try:
            found.append(Token(reference))
        except ConfigError as error:
            problems += [_under(name, problem) for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    return found


def read_token(reference: str) -> str:
    """Return a token. Raises ConfigError if it is missing, or nothing that a client can send."""
    try:
        token = resolve(reference)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(Problem(reference, rule=f"cannot be read: {reason}")) from None
    if not _TOKEN.fullmatch(token):
        rule = "should have a token: visible ASCII characters without spaces, on one line"
        raise ConfigError(Problem(reference, rule=rule, got=None if token else "nothing"))
    return token


def _under(name: str, problem: Problem) -> Problem:
    rule = f"{problem.where}: {problem.rule}"
    return Problem(f"serving.tokens.{name}", rule=rule, got=problem.got, remedy=problem.remedy)


def digest(token: str) -> bytes:
    """The hash by which tokens are compared."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
