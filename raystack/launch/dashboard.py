"""The door to a Ray dashboard: requests with a token, and a log that is followed. In: an address. Out: plain
JSON values and text.

Plain HTTP, because Ray's own client imports Ray, which takes longer than most answers, and knows one token
per process. What goes wrong is a LaunchError of one line.
"""

import asyncio
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Any

from raystack.config.secret import resolve
from raystack.environment import token as rays_token
from raystack.errors import LaunchError, Problem

ANSWER_S = 30.0
"""Seconds that a dashboard may take to answer; it asks the cluster's nodes itself."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A handler that refuses redirects: one would carry the token to another host."""

    def redirect_request(self, *args: Any, **options: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


class Dashboard:
    """Requests to a Ray dashboard.

    `token` is a reference to the cluster's token. By default it is the one that Ray itself finds.
    """

    def __init__(self, address: str, token: str | None = None) -> None:
        self.address = (address if "://" in address else f"http://{address}").rstrip("/")
        self._token = resolve(token) if token is not None else rays_token.found()

    def get(self, path: str) -> Any | None:
        """Return JSON; None if the resource does not exist."""
        answer = self._ask("GET", path)
        return None if answer is None else self._json(path, answer)

    def has(self, path: str) -> bool:
        """Return whether the resource exists."""
        return self._ask("GET", path) is not None

    def post(self, path: str, values: Any = None) -> Any | None:
        """Post JSON and return the answer as JSON; None if the resource does not exist."""
        answer = self._ask(
            "POST", path, json.dumps(values).encode() if values is not None else b"", "application/json"
        )
        return None if answer is None else self._json(path, answer)

    def put(self, path: str, content: bytes) -> None:
        """Upload bytes."""
        self._ask("PUT", path, content, "application/octet-stream")

    def follow(self, path: str) -> Iterator[str]:
        """Yield text as it arrives, until the server ends it. LaunchError if the connection breaks before."""
        with asyncio.Runner() as runner:
            pieces = self._follow(path)
            while (piece := runner.run(_next(pieces))) is not None:
                yield piece

    async def _follow(self, path: str) -> AsyncIterator[str]:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_S)
        try:
            async with (
                aiohttp.ClientSession(headers=self._headers, timeout=timeout, trust_env=True) as session,
                session.ws_connect(f"{self.address}{path}", max_msg_size=0, heartbeat=ANSWER_S) as socket,
            ):
                async for message in socket:
                    if message.type == aiohttp.WSMsgType.TEXT:
                        yield message.data
                if socket.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE:
                    raise self._silent("the connection was lost")
        except aiohttp.WSServerHandshakeError as error:
            raise self._refused(error.status, error.message) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._silent(str(error)) from error

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _ask(
        self, method: str, path: str, content: bytes | None = None, kind: str | None = None
    ) -> bytes | None:
        headers = {**self._headers, **({"Content-Type": kind} if kind else {})}
        request = urllib.request.Request(
            f"{self.address}{path}", data=content, headers=headers, method=method
        )
        try:
            with _OPENER.open(request, timeout=ANSWER_S) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode(errors="replace")
            if error.code == 404:
                return None
            raise self._refused(error.code, text) from None
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            raise self._silent(str(getattr(error, "reason", error))) from error
        except ValueError:  # its text may hold the token
            rule = "should be the address of a Ray dashboard, e.g. http://127.0.0.1:8265"
            raise LaunchError(Problem("target.address", rule=rule, got=self.address)) from None

    def _json(self, path: str, answer: bytes) -> Any:
        try:
            return json.loads(answer)
        except ValueError:
            rule = f"what answers there is no Ray dashboard: {path} is no JSON"
            raise LaunchError(Problem("target.address", rule=rule, got=self.address)) from None

    def _silent(self, why: str) -> LaunchError:
        remedy = "start one with `ray start --head`, forward its port 8265, or name another address"
        return LaunchError(
            Problem(
                "target.address",
                rule=f"no Ray dashboard answers there: {why}",
                got=self.address,
                remedy=remedy,
            )
        )

    def _refused(self, status: int, text: str) -> LaunchError:
        if status == 401:
            rule, remedy = (
                "the cluster asks for a token, and there is none",
                f"set RAY_AUTH_TOKEN, target.token, or leave it in {rays_token.FILE}",
            )
            return LaunchError(Problem("target.token", rule=rule, got=self.address, remedy=remedy))
        if status == 403:
            remedy = "give the cluster's own, e.g. with target.token=secret:env:NAME"
            return LaunchError(
                Problem("target.token", rule="the cluster refuses the token", got=self.address, remedy=remedy)
            )
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")
        return LaunchError(
            Problem(self.address, rule=f"the cluster refuses, with HTTP status {status}: {last}")
        )


async def _next(pieces: AsyncIterator[str]) -> str | None:
    return await anext(pieces, None)
