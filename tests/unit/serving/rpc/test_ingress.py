"""Serve's own gRPC server, without a Serve: what it answers by itself in a replica, and what it passes on."""

import asyncio
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import grpc
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from ray._common.utils import import_attr
from ray.serve._private.grpc_util import gRPCGenericServer
from served import a_server
from test_inference import Response, StreamResponse, slow_request

from raystack.plan.serving import GRPC_SERVICES
from raystack.serving.grpc import ingress
from raystack.serving.grpc.rpc import code

INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingress, "_here", [])


async def served(passed: list[str], talk: Callable[[str], Any]) -> Any:
    """What `talk`, which is given the address, returns. `passed` are the calls that Serve would route."""

    def factory(service_method: str, streaming_type: Any) -> Any:
        async def routed(*_: Any) -> bytes:
            passed.append(service_method)
            return b""

        return routed

    server = gRPCGenericServer(factory)
    import_attr(GRPC_SERVICES)(Mock(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        return await asyncio.to_thread(talk, f"127.0.0.1:{port}")
    finally:
        await server.stop(0)


def infer(address: str) -> Any:
    with grpc.insecure_channel(address) as channel:
        return Response.FromString(
            channel.unary_unary(INFER)(slow_request("a").SerializeToString(), timeout=30)
        )


def test_a_replica_answers_beneath_serves_request_path() -> None:
    passed: list[str] = []

    async def run() -> Any:
        ingress.answer_here(a_server())
        return await served(passed, infer)

    answer = asyncio.run(run())
    assert (answer.id, answer.model_version) == ("a", "3")
    assert not passed


@pytest.mark.parametrize("place", ["replica", "proxy"])
def test_reflection_describes_the_messages(place: str) -> None:
    def describe(address: str) -> bytes:
        with grpc.insecure_channel(address) as channel:
            found = ProtoReflectionDescriptorDatabase(channel)
            file = found.FindFileContainingSymbol("inference.GRPCInferenceService")
            return bytes(file.SerializeToString())

    async def run() -> Any:
        if place == "replica":
            ingress.answer_here(a_server())
        return await served([], describe)

    assert b"raw_input_contents" in asyncio.run(run())


def test_a_replica_that_stops_ends_the_calls_that_stay_open() -> None:
    """Serve waits for open calls as long as a replica may finish its requests."""
    stopped: list[float] = []

    async def run() -> None:
        ingress.answer_here(a_server())
        server = gRPCGenericServer(lambda **_: None)
        import_attr(GRPC_SERVICES)(Mock(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
            await watch.read()
            stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")()
            await stream.write(slow_request("a").SerializeToString())
            await asyncio.sleep(0.1)
            began = time.monotonic()
            stopping = asyncio.create_task(server.stop(60))
            assert StreamResponse.FromString(await stream.read()).infer_response.id == "a"
            assert await stream.code() == await watch.code() == grpc.StatusCode.UNAVAILABLE
            await stopping
            stopped.append(time.monotonic() - began)

    asyncio.run(run())
    assert stopped[0] < 30


def test_a_proxy_passes_every_call_on() -> None:
    passed: list[str] = []
    asyncio.run(served(passed, lambda address: infer(address)))
    assert passed == [INFER]


class Context:
    """What Serve gives a method of the deployment."""

    def __init__(self) -> None:
        self.code: Any = None
        self.details = ""

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return [("traceparent", "00-1-2-01")]

    def set_code(self, code: Any) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details

    def set_trailing_metadata(self, metadata: Any) -> None:
        pass


@ingress.with_rpcs
class Deployed:
    """Stands for the class of replicas."""


def test_a_deployment_answers_what_a_proxy_passes_on() -> None:
    async def run() -> Any:
        ingress.answer_here(a_server())
        deployed: Any = Deployed()
        return await deployed.ModelInfer(slow_request("a").SerializeToString(), grpc_context=Context())

    assert Response.FromString(asyncio.run(run()).SerializeToString()).id == "a"


def test_a_deployment_refuses_with_a_code_and_without_an_exception() -> None:
    async def run() -> Any:
        ingress.answer_here(a_server())
        deployed: Any = Deployed()
        context = Context()
        answer = await deployed.ModelInfer(b"\xff", grpc_context=context)
        return answer.SerializeToString(), context

    body, context = asyncio.run(run())
    assert (body, context.code) == (b"", grpc.StatusCode.INVALID_ARGUMENT)
    assert "should be a message" in context.details


def test_a_status_without_a_code_of_its_own_still_says_whose_fault_it_was() -> None:
    assert code(409) == grpc.StatusCode.INVALID_ARGUMENT
    assert code(500) == code(599) == grpc.StatusCode.INTERNAL


def test_a_deployment_answers_a_stream() -> None:
    async def run() -> list[Any]:
        async def bodies() -> Any:
            for identity in ("a", "b"):
                yield slow_request(identity).SerializeToString()

        ingress.answer_here(a_server())
        deployed: Any = Deployed()
        answers = deployed.ModelStreamInfer(bodies(), grpc_context=Context())
        return [StreamResponse.FromString(answer.SerializeToString()) async for answer in answers]

    assert [answer.infer_response.id for answer in asyncio.run(run())] == ["a", "b"]
