"""How programs of this machine ask a server that was started here: with one of its tokens, and trusting its
certificate.
"""

import shlex
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from ssl import SSLContext
from typing import Any
from urllib.parse import urlsplit

from raystack.config.access import Tls
from raystack.config.serving import Serving
from raystack.serving import certificate
from raystack.serving.tokens import FILE, read_token, read_tokens


def check(serving: Serving) -> None:
    """Raise ConfigError if a token is missing here, or the files for TLS are wrong."""
    read_tokens(serving.tokens)
    if serving.tls is not None:
        certificate.check(serving.tls)


@dataclass(frozen=True)
class Access:
    """What a program needs to ask a server."""

    token: str | None = None
    """The reference of a token; None where everybody may ask."""
    tls: Tls | None = None

    @classmethod
    def of(cls, serving: Serving) -> "Access":
        """Return the access to a server of these settings."""
        return cls(next(iter(serving.tokens.values()), None), serving.tls)

    @property
    def headers(self) -> Mapping[str, str]:
        """The token, as HTTP and gRPC have it. Raises ConfigError if it is not here."""
        return {} if self.token is None else {"Authorization": f"Bearer {read_token(self.token)}"}

    def open(
        self, url: str, timeout: float, data: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Open a URL of the server, as `urllib.request.urlopen` does."""
        request = urllib.request.Request(url, data, {**(headers or {}), **self.headers})
        return urllib.request.urlopen(request, timeout=timeout, context=self._context)

    def curl(self, url: str) -> str:
        """Return a curl command that asks a URL, without what is asked. It refers to the token."""
        words: list[str] = []
        if self.tls is not None:
            url, words = self._private(url, self.tls)
        if self.token is not None:
            words.append(f'-H "Authorization: Bearer {_in_a_shell(self.token)}"')
        return " ".join(["curl -s", *words, url])

    @cached_property
    def _context(self) -> SSLContext | None:
        return None if self.tls is None else certificate.trusting(self.tls)

    def _private(self, url: str, tls: Tls) -> tuple[str, list[str]]:
        split = urlsplit(url)
        covered, name = certificate.covers(tls, split.hostname or "")
        words = [f"--cacert {shlex.quote(tls.certificate)}"]
        if tls.client_ca is not None:
            words.append("--cert CLIENT.pem --key CLIENT.key")
        if not covered and name is not None:
            words.append(f"--connect-to {name}:{split.port}:{split.netloc}")
            url = split._replace(netloc=f"{name}:{split.port}").geturl()
        return url, words


def _in_a_shell(reference: str) -> str:
    if reference.startswith(FILE):
        return f"$(cat {shlex.quote(reference.removeprefix(FILE))})"
    return f"${reference.rpartition(':')[2]}"
