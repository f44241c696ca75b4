"""The server's limits in front of vLLM's routes, and refusals as OpenAI's clients read them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from raystack.config.serving import Serving
from raystack.serving.llm.gate import Gate
from raystack.serving.rest.body import Message, Receive


class Routes:
    """What vLLM does of it: it answers a body with itself; `{"stream": 1}` with an event, and then waits."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.begun = self.cancelled = self.failures = 0

    async def failed(self) -> None:
        self.failures += 1

    async def __call__(self, scope: Message, receive: Receive, send: Callable[..., Awaitable[None]]) -> None:
        self.begun += 1
        body = (await receive())["body"] if scope["method"] == "POST" else b"models"
        try:
            if b"stream" in body:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"data: a\n\n", "more_body": True})
            if b"wait" in body or b"stream" in body:
                await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if b"stream" not in body:
            status = 500 if b"dead" in body else 200
            await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})


def visit(talk: Callable[[httpx.AsyncClient, Routes], Awaitable[Any]], **limits: Any) -> Any:
    async def run() -> Any:
        routes = Routes()
        gate = Gate(Serving(kind="llm", **limits), routes.failed)
        transport = httpx.ASGITransport(gate.around(routes))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await talk(client, routes)

    return asyncio.run(run())


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_requests_pass() -> None:
    async def talk(client: httpx.AsyncClient, _: Routes) -> list[str]:
        return [
            (await client.post("/v1/completions", content="{}")).text,
            (await client.get("/v1/models")).text,
        ]

    assert visit(talk) == ["{}", "models"]


def test_it_is_told_of_an_error_of_the_server_before_the_client_is() -> None:
    async def talk(client: httpx.AsyncClient, routes: Routes) -> None:
        for content, status, failures in (("{}", 200, 0), ("dead", 500, 1)):
            answer = await client.post("/v1/completions", content=content)
            assert (answer.status_code, routes.failures) == (status, failures)

    visit(talk)


def test_a_body_that_is_too_large_does_not_reach_the_model() -> None:
    async def talk(client: httpx.AsyncClient, routes: Routes) -> None:
        answer = await client.post("/v1/completions", content="x" * 1001)
        assert answer.status_code == 413
        error = answer.json()["error"]
        assert error["message"].startswith("body: should have at most 0.001 MB")
        assert (error["type"], error["code"]) == ("invalid_request_error", 413)
        assert not routes.begun

    visit(talk, body_mb=0.001)


def test_requests_wait_and_are_refused_beyond_a_number() -> None:
    async def talk(client: httpx.AsyncClient, routes: Routes) -> None:
        first = asyncio.ensure_future(client.post("/v1/completions", content="wait 1"))
        await _until(lambda: routes.begun == 1)
        second = asyncio.ensure_future(client.post("/v1/completions", content="wait 2"))
        await asyncio.sleep(0.05)
        assert routes.begun == 1, "the second waits"
        third = await client.post("/v1/completions", content="wait 3")
        assert (third.status_code, third.headers["retry-after"]) == (429, "1")
        assert third.json()["error"]["type"] == "rate_limit_error"
        assert (await client.get("/v1/models")).status_code == 200, "what is only read does not wait"
        routes.go_on.set()
        assert [(await each).text for each in (first, second)] == ["wait 1", "wait 2"]

    visit(talk, max_ongoing=1, max_queued=1)


def test_tokens_are_asked_for_except_of_who_asks_for_health(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "abc")

    async def talk(client: httpx.AsyncClient, routes: Routes) -> None:
        assert (await client.get("/health")).status_code == 200
        for sent in ({}, {"authorization": "Bearer x"}):
            for answer in (
                await client.get("/v1/models", headers=sent),
                await client.post("/", headers=sent),
            ):
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, 401)
        assert routes.begun == 1
        assert (await client.get("/v1/models", headers={"authorization": "Bearer abc"})).text == "models"

    visit(talk, tokens={"us": "secret:env:TOKEN"})


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    async def talk(client: httpx.AsyncClient, routes: Routes) -> None:
        answer = await client.post("/v1/completions", content="wait")
        assert (answer.status_code, routes.cancelled) == (504, 1)
        assert answer.json()["error"]["message"] == "request: took longer than 0.05 s; ask for fewer tokens"
        stream = await client.post("/v1/completions", content="stream")
        first, second, rest = stream.text.split("\n\n")
        assert (stream.status_code, first, rest) == (200, "data: a", "")
        assert second.startswith('data: {"error":{"message":"request: took longer')

    visit(talk, timeout_s=0.05)
