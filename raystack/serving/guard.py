"""Who may ask: the tokens of a server, of which clients send one with each request.

A token is compared by its hash, in constant time and with all there are, so that the time of an answer tells
nothing about them.
"""

import hmac
import logging
import time
from collections.abc import Mapping

from raystack.errors import ConfigError, Problem
from raystack.serving.protocol import RequestError
from raystack.serving.tokens import digest, read_tokens

LOOK_S = 1.0
"""Seconds between two looks at whether a token's file has changed."""
CHALLENGE = (("www-authenticate", "Bearer"),)

logger = logging.getLogger(__name__)


class Guard:
    """The tokens of a server. For use by one thread."""

    def __init__(self, references: Mapping[str, str]) -> None:
        """Read the tokens. Raises ConfigError that names those that cannot be read."""
        self._tokens = read_tokens(references)
        self._looked = time.monotonic()

    def check(self, authorization: str | None) -> None:
        """Raise RequestError (401) unless the header `Authorization` has one of the tokens."""
        now = time.monotonic()
        if now - self._looked >= LOOK_S:
            self._looked = now
            for token in self._tokens:
                token.look()
        scheme, _, sent = (authorization or "").partition(" ")
        own = digest(sent.strip())
        known = False
        for token in self._tokens:
            known |= hmac.compare_digest(own, token.digest)
        if known and scheme.lower() == "bearer":
            return
        rule = "is none of this server's tokens" if authorization else "is missing"
        raise RequestError(Problem("authorization", rule=f"the token {rule}"), 401, CHALLENGE)


def guard(references: Mapping[str, str]) -> Guard | None:
    """Return the guard of a server; None if everybody may ask. Raises ConfigError as Guard does."""
    return Guard(references) if references else None


def renewed(before: Guard | None, references: Mapping[str, str], *, first: bool) -> Guard | None:
    """Return the guard of a server whose tokens are others now. Later ones that are missing are logged.

    Raises ConfigError as Guard does if they are the first.
    """
    try:
        return guard(references)
    except ConfigError as error:
        if first:
            raise
        logger.error("%s; the tokens are what they were", error)
        return before
