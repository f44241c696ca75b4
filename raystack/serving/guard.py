"""Who may ask: the tokens of a server, of which clients send one with each request.

A token is compared by its hash, in constant time and with all there are, so that the time of an answer tells
nothing about them.
"""

import hashlib
import hmac
import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from raystack.config.secret import resolve
from raystack.errors import ConfigError, Problem
from raystack.serving.protocol import RequestError

LOOK_S = 1.0
"""Seconds between two looks at whether a token's file has changed."""
CHALLENGE = (("www-authenticate", "Bearer"),)
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
        self.digest = _digest(read_token(reference))

    def look(self) -> None:
        """Read it again if its file has changed. One that is missing now is still what it was."""
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self.digest = _digest(read_token(self._reference))
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


class Guard:
    """The tokens of a server. For use by one thread."""

    def __init__(self, references: Mapping[str, str]) -> None:
        """Read the tokens. Raises ConfigError that names those that cannot be read."""
        found, problems = [], []
        for name, reference in references.items():
            try:
                found.append(Token(reference))
            except ConfigError as error:
                problems += [_under(name, problem) for problem in error.problems]
        if problems:
            raise ConfigError(problems)
        self._tokens = found
        self._looked = time.monotonic()

    def check(self, authorization: str | None) -> None:
        """Raise RequestError (401) unless the header `Authorization` has one of the tokens."""
        now = time.monotonic()
        if now - self._looked >= LOOK_S:
            self._looked = now
            for token in self._tokens:
                token.look()
        scheme, _, sent = (authorization or "").partition(" ")
        digest = _digest(sent.strip())
        known = False
        for token in self._tokens:
            known |= hmac.compare_digest(digest, token.digest)
        if known and scheme.lower() == "bearer":
            return
        rule = "is none of this server's tokens" if authorization else "is missing"
        raise RequestError(Problem("authorization", rule=f"the token {rule}"), 401, CHALLENGE)


def guard(references: Mapping[str, str]) -> Guard | None:
    """Return the guard of a server; None if everybody may ask. Raises ConfigError as Guard does."""
    return Guard(references) if references else None


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


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
