"""Tokens: who may ask, over HTTP and gRPC, and what everybody is told."""

import asyncio
import hmac
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from raystack.config.serving import Serving
from raystack.errors import ConfigError
from raystack.serving import guard as guards
from raystack.serving.endpoint import Endpoint
from raystack.serving.engine import ModelEngine
from raystack.serving.grpc.services import add
from raystack.serving.guard import Guard, guard
from raystack.serving.protocol import Contract
from raystack.serving.protocol.tensors import Array
from raystack.serving.server import Admission, Model, Server, Version

ASKED = {
    "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]},
        {"name": "n", "datatype": "INT64", "shape": [1, 1], "data": [5]},
    ]
}
OPEN = ["/v2/health/live", "/v2/health/ready", "/v2/models/demo/ready", "/v2/models/demo/versions/3/ready"]
CLOSED = [
    *("/", "/v2", "/v2/models", "/v2/models/demo", "/v2/models/demo/config", "/v2/models/stats"),
    *("/v2/trace/setting", "/v2/logging", "/v1/models", "/v1/models/demo", "/nowhere", "/v2/health"),
    *("/v2/models//ready", "/v2/models/demo/ready/x"),
]


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Two tokens: `first` in a variable, `second` in a file."""
    monkeypatch.setenv("SOME_TOKEN", "first")
    (tmp_path / "token").write_text("second\n", encoding="utf-8")
    return {"app": "secret:env:SOME_TOKEN", "ops": f"secret:file:{tmp_path / 'token'}"}


def add_up(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"y": inputs["x"].sum(1, keepdims=True, dtype=np.float32), "label": inputs["n"][:, 0]}


def a_server(contract: Contract, tokens: Mapping[str, str]) -> Server:
    server = Server()
    server.guard = guard(tokens)
    server.add(Model("demo", Admission(4, 4)))
    server.put(Version(contract, ModelEngine(contract.signature, add_up, 8, 0.001), "ready"))
    return server


def visit(
    contract: Contract, tokens: Mapping[str, str], talk: Callable[[httpx.AsyncClient], Awaitable[Any]]
) -> Any:
    async def run() -> Any:
        transport = httpx.ASGITransport(Endpoint(a_server(contract, tokens)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await talk(client)

    return asyncio.run(run())


def bearer(token: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"Authorization": f"{scheme} {token}"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (bearer("first"), 200),
        (bearer("second"), 200),
        (bearer("second", "bearer"), 200),
        ({}, 401),
        (bearer("third"), 401),
        (bearer(""), 401),
        (bearer("first "), 200),
        (bearer("first second"), 401),
        (bearer("First"), 401),
        (bearer("first", "Basic"), 401),
        ({"Authorization": "first"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Bearer \xff"}, 401),
        ({"X-Authorization": "Bearer first"}, 401),
    ],
)
def test_a_request_needs_one_of_the_tokens(
    contract: Contract, secrets: dict[str, str], headers: dict[str, str], status: int
) -> None:
    sent = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answered = visit(
        contract, secrets, lambda client: client.post("/v2/models/demo/infer", json=ASKED, headers=sent)
    )
    assert answered.status_code == status
    if status == 401:
        assert answered.headers["www-authenticate"] == "Bearer"
        assert answered.json()["error"].startswith("authorization: the token is ")
        assert not any(word in answered.text for word in ("first", "second", "third"))


@pytest.mark.parametrize("path", OPEN)
def test_health_is_told_to_everybody(contract: Contract, secrets: dict[str, str], path: str) -> None:
    assert visit(contract, secrets, lambda client: client.get(path)).status_code == 200


@pytest.mark.parametrize("path", CLOSED)
def test_everything_else_is_closed(contract: Contract, secrets: dict[str, str], path: str) -> None:
    async def talk(client: httpx.AsyncClient) -> set[int]:
        return {(await client.request(method, path)).status_code for method in ("GET", "POST", "PUT")}

    assert visit(contract, secrets, talk) == {401}


def test_without_tokens_everybody_may_ask(contract: Contract) -> None:
    assert visit(contract, {}, lambda client: client.get("/v2")).status_code == 200


def test_no_byte_of_the_body_is_read_for_a_stranger(contract: Contract, secrets: dict[str, str]) -> None:
    async def run() -> list[Any]:
        sent: list[Any] = []
        scope = {"type": "http", "method": "POST", "path": "/v2/models/demo/infer", "headers": []}

        async def receive() -> Any:
            raise AssertionError

        async def send(message: Any) -> None:
            sent.append(message)

        await Endpoint(a_server(contract, secrets))(scope, receive, send)
        return sent

    assert asyncio.run(run())[0]["status"] == 401


def test_all_tokens_are_compared_whichever_is_right(
    secrets: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(len(one))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for token in ("first", "second"):
        Guard(secrets).check(f"Bearer {token}")
    assert compared == [32] * 4


def test_a_file_is_read_again_when_it_has_changed(
    secrets: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contract: Contract
) -> None:
    monkeypatch.setattr(guards, "LOOK_S", 0.0)
    file = tmp_path / "token"

    async def talk(client: httpx.AsyncClient) -> list[int]:
        found = []

        async def ask(*tokens: str) -> None:
            found.extend([(await client.get("/v2", headers=bearer(each))).status_code for each in tokens])

        await ask("second", "newer")
        (tmp_path / "next").write_text("newer", encoding="utf-8")
        os.replace(tmp_path / "next", file)
        await ask("second", "newer", "first")
        file.write_text("", encoding="utf-8")  # as while it is being written
        await ask("newer", "")
        file.unlink()
        await ask("newer")
        file.write_text("newest", encoding="utf-8")
        await ask("newer", "newest")
        return found

    assert visit(contract, secrets, talk) == [200, 401, 401, 200, 200, 200, 401, 200, 401, 200]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file on this machine"),
        ("", "should have a token: visible ASCII characters without spaces, on one line (got nothing)"),
        ("two words", "should have a token"),
        ("two\nlines", "should have a token"),
        ("é", "should have a token"),
    ],
)
def test_a_token_that_cannot_be_read_is_named_and_not_shown(
    tmp_path: Path, content: str | None, said: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        guard({"app": f"secret:file:{file}", "other": "secret:env:SURELY_NOT_SET"})
    one, other = (str(problem) for problem in caught.value.problems)
    assert one.startswith(f"serving.tokens.app: secret:file:{file}: {said}")
    assert other.startswith("serving.tokens.other: secret:env:SURELY_NOT_SET: there is no such environment")
    assert not content or content not in one


def test_a_config_has_references_alone() -> None:
    assert Serving.model_validate({"tokens": {"app": "secret:env:X"}}).tokens == {"app": "secret:env:X"}
    with pytest.raises(ValueError, match="and not the secret itself") as caught:
        Serving.model_validate({"tokens": {"app": "hunter2"}})
    assert "should be a reference" in str(caught.value)


class TestGrpc:
    """Over gRPC a token is the metadata `authorization`."""

    @pytest.fixture
    def call(self, contract: Contract, secrets: dict[str, str]) -> Callable[..., Any]:
        async def ask(path: str, metadata: Any, stream: bool) -> Any:
            server = grpc.aio.server()
            add(server, a_server(contract, secrets))
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                try:
                    if stream:
                        async for _ in channel.stream_stream(path)(iter([]), metadata=metadata):
                            pass
                    else:
                        await channel.unary_unary(path)(b"", metadata=metadata)
                    return None
                except grpc.aio.AioRpcError as error:
                    return error.code()
                finally:
                    await server.stop(0)

        return lambda path, metadata=(), stream=False: asyncio.run(ask(path, metadata, stream))

    @pytest.mark.parametrize(
        ("metadata", "code"),
        [
            ((), grpc.StatusCode.UNAUTHENTICATED),
            ((("authorization", "Bearer third"),), grpc.StatusCode.UNAUTHENTICATED),
            ((("authorization", "Bearer second"),), None),
        ],
    )
    @pytest.mark.parametrize(
        ("rpc", "stream"),
        [("ServerMetadata", False), ("RepositoryIndex", False), ("ModelStreamInfer", True)],
    )
    def test_a_call_needs_one(
        self, call: Callable[..., Any], rpc: str, stream: bool, metadata: Any, code: Any
    ) -> None:
        assert call(f"/inference.GRPCInferenceService/{rpc}", metadata, stream) == code

    @pytest.mark.parametrize(
        "rpc",
        [
            "inference.GRPCInferenceService/ServerLive",
            "inference.GRPCInferenceService/ServerReady",
            "inference.GRPCInferenceService/ModelReady",
            "grpc.health.v1.Health/Check",
            "grpc.health.v1.Health/List",
        ],
    )
    def test_health_is_told_to_everybody(self, call: Callable[..., Any], rpc: str) -> None:
        assert call(f"/{rpc}") is None

    def test_bytes_that_are_no_message_are_refused_for_the_missing_token(
        self, call: Callable[..., Any]
    ) -> None:
        path = "/inference.GRPCInferenceService/ModelInfer"
        assert call(path, (), False) == grpc.StatusCode.UNAUTHENTICATED
