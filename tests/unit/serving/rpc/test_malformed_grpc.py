"""Good messages, each spoiled somewhere: an answer, or a refusal with a code that blames the client."""

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from served import Running, a_server, serving

from raystack.serving.grpc.messages import Message, message_class
from raystack.serving.grpc.rpc import rpcs
from raystack.serving.grpc.services import NAMES
from tests.unit.serving.spoiled_messages import spoil, spoiled

MUTANTS = 1_000
REFUSALS = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
MODELS = ["sum", "echo", "counting"]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving(a_server(largest=1_000_000)) as running:
        yield running


def good(chance: random.Random) -> Message:
    """A request to `sum`, raw or typed."""
    request = message_class("inference.ModelInferRequest")(model_name="sum", id="7")
    x = request.inputs.add(name="x", datatype="FP32", shape=[2, 2])
    n = request.inputs.add(name="n", datatype="INT64", shape=[2, 1])
    if chance.random() < 0.5:
        x.contents.fp32_contents.extend((1, 2, 3, 4))
        n.contents.int64_contents.extend((5, 6))
    else:
        request.raw_input_contents.extend((bytes(16), bytes(16)))
    if chance.random() < 0.3:
        request.outputs.add(name="y")
    return request


def mutants(seed: int, count: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    for _ in range(count):
        request = good(chance)
        if chance.random() < 0.2:
            request.model_name = chance.choice(MODELS)
        for _ in range(chance.choice([0, 1, 1, 2, 3])):
            spoil(chance, request)
        body = request.SerializeToString()
        yield spoiled(chance, body) if chance.random() < 0.3 else body


def status(call: Any, body: bytes) -> str:
    try:
        call(body, timeout=60)
    except grpc.RpcError as error:
        code, details = error.code(), error.details()
        assert code.name in REFUSALS, (code, details, body[:500])
        assert details
        return str(code.name)
    return "OK"


def is_whole(running: Running) -> bool:
    models = running.server.models.values()
    busy = [model.admission.ongoing + model.admission.waiting for model in models]
    held = [version.ongoing for model in models for version in model.versions.values()]
    return not any(busy + held)


def test_no_infer_request_is_the_servers_fault(running: Running) -> None:
    with grpc.insecure_channel(running.address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        counted = Counter(status(call, body) for body in mutants(1, MUTANTS))
        assert status(call, good(random.Random(0)).SerializeToString()) == "OK"
    assert counted["OK"] > MUTANTS / 10
    assert counted["INVALID_ARGUMENT"] > MUTANTS / 4
    assert is_whole(running)


def test_a_stream_answers_each_of_them_and_goes_on(running: Running) -> None:
    bodies = list(mutants(2, 300))
    response = message_class("inference.ModelStreamInferResponse")
    with grpc.insecure_channel(running.address) as channel:
        call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        answers = [response.FromString(body) for body in call(iter(bodies), timeout=60)]
    # The models of these answer once, or as often as a number says that is small or too large.
    assert len(answers) >= len(bodies)
    assert not [answer for answer in answers if "the server failed" in answer.error_message]
    assert is_whole(running)


@pytest.mark.parametrize("service", NAMES)
def test_no_request_to_another_rpc_is_the_servers_fault(running: Running, service: str) -> None:
    chance = random.Random(3)
    with grpc.insecure_channel(running.address) as channel:
        for rpc in rpcs(service).values():
            if rpc.streams_out:
                continue
            call = channel.unary_unary(f"/{service}/{rpc.name}")
            for _ in range(20):
                request = rpc.request()
                for _ in range(chance.randrange(4) if request.DESCRIPTOR.fields else 0):
                    spoil(chance, request)
                body = request.SerializeToString()
                status(call, spoiled(chance, body) if chance.random() < 0.3 else body)
