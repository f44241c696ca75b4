"""In a replica the protocol's paths are answered beneath Serve, and nothing else is."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from raystack.serving import front
from raystack.serving.rest.body import Message, Receive
from raystack.serving.writing import Send


def saying(word: str) -> front.Application:
    async def application(scope: Message, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % len(word))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": word.encode()})

    return application


@pytest.fixture(autouse=True)
def _process() -> Iterator[None]:
    yield
    front._here.clear()


async def asked(path: str, root_path: str = "") -> str:
    application: Any = saying("serve")
    for middleware in front.middlewares():
        application = middleware.cls(application, *middleware.args, **middleware.kwargs)
    transport = httpx.ASGITransport(application, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return (await client.get(path)).text


@pytest.mark.parametrize(
    ("path", "answered_by"),
    [
        ("/v2", "own"),
        ("/v2/models/demo/infer", "own"),
        ("/v1/models/demo:predict", "own"),
        ("/-/healthz", "serve"),
        ("/-/routes", "serve"),
        ("/", "serve"),
        ("/app/v2/models/demo", "serve"),
    ],
)
def test_the_paths_of_the_protocol_are_the_replicas_own(path: str, answered_by: str) -> None:
    async def run() -> str:
        front.answer_here(saying("own"))
        return await asked(path)

    assert asyncio.run(run()) == answered_by


def test_paths_are_below_the_servers_root_path() -> None:
    async def run() -> tuple[str, str]:
        front.answer_here(saying("own"))
        return await asked("/root/v2/models", "/root"), await asked("/root/-/healthz", "/root")

    assert asyncio.run(run()) == ("own", "serve")


def test_a_process_without_a_model_leaves_all_to_serve() -> None:
    assert asyncio.run(asked("/v2/models")) == "serve"


def test_a_server_on_another_event_loop_leaves_all_to_serve() -> None:
    async def replica() -> None:
        front.answer_here(saying("own"))

    asyncio.run(replica())
    assert asyncio.run(asked("/v2/models")) == "serve"
