"""Over gRPC a call names its model in the message, and reaches it through the gateway."""

from collections.abc import Iterator
from queue import Queue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from near import Near, none
from served import a_server, serving

from raystack.serving.server import Elsewhere, Server
from raystack.serving.several.pool import Pool
from raystack.serving.several.rpcs import relaying

LONG = "a" * 200


@pytest.fixture(scope="module")
def near() -> Near:
    alone = {name: a_server() for name in ("slow", "counting", LONG)}
    for name, server in alone.items():
        own = server.models["sum" if name == LONG else name]
        server.models = {name: own}
    return Near(alone)


@pytest.fixture(scope="module")
def client(near: Near) -> Iterator[triton.InferenceServerClient]:
    """Of a gateway that has the models `sum` and `echo` itself."""
    server: Server = a_server()
    del server.models["slow"], server.models["counting"]
    server.elsewhere = {name: Elsewhere(True) for name in ("slow", "counting", LONG)}
    server.elsewhere["asleep"] = Elsewhere(True, True)
    with (
        serving(server, relaying(server, near, Pool(server, none))) as running,
        triton.InferenceServerClient(running.address) as made,
    ):
        yield made


def inputs(x: float = 1.0) -> list[Any]:
    sent = [triton.InferInput("x", [1, 2], "FP32"), triton.InferInput("n", [1, 1], "INT64")]
    sent[0].set_data_from_numpy(np.array([[x, 2.0]], np.float32))
    sent[1].set_data_from_numpy(np.array([[5]], np.int64))
    return sent


@pytest.mark.parametrize("name", ["sum", "slow", LONG])
def test_a_prediction_reaches_its_model(client: triton.InferenceServerClient, near: Near, name: str) -> None:
    near.asked.clear()
    assert client.infer(name, inputs()).as_numpy("y").tolist() == [[3.0]]
    assert near.asked == ([] if name == "sum" else [name])


def test_errors_are_those_of_the_model(client: triton.InferenceServerClient) -> None:
    with pytest.raises(triton.InferenceServerException, match="x") as raised:
        client.infer("slow", inputs()[1:])
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"
    with pytest.raises(triton.InferenceServerException, match="did you mean 'slow'") as raised:
        client.infer("slo", inputs())
    assert raised.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(triton.InferenceServerException) as raised:
        client.infer("slow", inputs(), client_timeout=0.1)
    assert raised.value.status() == "StatusCode.DEADLINE_EXCEEDED"


def test_management_is_of_all_models(client: triton.InferenceServerClient, near: Near) -> None:
    near.asked.clear()
    assert client.is_server_ready()
    assert client.is_model_ready("slow")
    assert client.is_model_ready("asleep"), "and is not asked, because that would start it"
    assert "asleep" not in near.asked
    assert client.get_model_metadata("slow").versions == ["3"]
    assert client.get_model_config("counting").config.model_transaction_policy.decoupled
    index = {model.name for model in client.get_model_repository_index().models}
    assert index >= {"sum", "echo", "slow", "counting", "asleep"}
    assert {row.name for row in client.get_inference_statistics().model_stats} >= {"sum", "slow"}
    assert {row.name for row in client.get_inference_statistics("slow").model_stats} == {"slow"}
    with pytest.raises(triton.InferenceServerException, match="does not load"):
        client.load_model("slow")


def test_a_stream_has_requests_to_any_model(client: triton.InferenceServerClient) -> None:
    answers: Queue[Any] = Queue()
    client.start_stream(lambda result, error: answers.put(error or result))
    many = triton.InferInput("n", [1], "INT64")
    many.set_data_from_numpy(np.array([2], np.int64))
    client.async_stream_infer("slow", inputs(1))
    client.async_stream_infer("sum", inputs(2))
    client.async_stream_infer("nobody", inputs(2))
    client.async_stream_infer("counting", [many])
    got = [answers.get(timeout=30) for _ in range(5)]
    client.stop_stream()
    assert [answer.as_numpy("y").tolist() for answer in got[:2]] == [[[3.0]], [[4.0]]]
    assert "this server has" in str(got[2])
    assert [answer.as_numpy("at").tolist() for answer in got[3:]] == [[0], [1]]
