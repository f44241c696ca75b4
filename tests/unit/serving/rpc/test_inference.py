"""Predictions over gRPC, by Triton's client and by the protocol's messages themselves."""

import asyncio
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc.aio
from served import SLOW_S, Running, a_server, serving
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from raystack.serving.grpc.messages import Message, message_class
from raystack.serving.protocol.tensors import DATATYPES, NUMPY

Request = message_class("inference.ModelInferRequest")
Response = message_class("inference.ModelInferResponse")
StreamResponse = message_class("inference.ModelStreamInferResponse")


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving(a_server()) as running:
        yield running


@pytest.fixture
def client(running: Running) -> Iterator[Any]:
    client = InferenceServerClient(running.address)
    yield client
    client.close()


def tensor(name: str, values: Any, datatype: str) -> Any:
    array = np.asarray(values)
    made = InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def summands(n: int = 7, rows: int = 1) -> list[Any]:
    x = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
    return [tensor("x", x, "FP32"), tensor("n", np.full((rows, 1), n), "INT64")]


def refused(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        call()
    return caught.value.status().removeprefix("StatusCode."), caught.value.message()


def asked(running: Running, request: Message, **options: Any) -> Message:
    with grpc.insecure_channel(running.address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        return Response.FromString(call(request.SerializeToString(), **options))


def test_outputs_id_and_version_are_answered(client: Any) -> None:
    answer = client.infer("sum", summands(rows=3), request_id="r-1")
    assert answer.as_numpy("y").tolist() == [[1.0], [5.0], [9.0]]
    assert answer.as_numpy("label").tolist() == [7, 7, 7]
    response = answer.get_response()
    assert (response.model_name, response.model_version, response.id) == ("sum", "3", "r-1")


def test_the_run_of_the_version_is_answered_if_it_is_to(running: Running) -> None:
    request = Request(model_name="sum")
    for name, datatype, values in (
        ("x", "FP32", np.zeros((1, 2), np.float32)),
        ("n", "INT64", np.zeros((1, 1), int)),
    ):
        request.inputs.add(name=name, datatype=datatype, shape=values.shape)
        request.raw_input_contents.append(values.tobytes())
    assert not asked(running, request).parameters
    running.server.lineage, running.server.models["sum"].version().run = True, "sum-1"
    try:
        assert asked(running, request).parameters["raystack_run"].string_param == "sum-1"
    finally:
        running.server.lineage = False


def test_only_the_outputs_that_are_asked_for_come_in_that_order(client: Any) -> None:
    def names(*outputs: str) -> list[str]:
        answer = client.infer("sum", summands(), outputs=[InferRequestedOutput(name) for name in outputs])
        return [output.name for output in answer.get_response().outputs]

    assert names("label") == ["label"]
    assert names("label", "y") == ["label", "y"]


def test_a_request_larger_than_a_batch_is_answered_whole(client: Any) -> None:
    assert client.infer("sum", summands(rows=20)).as_numpy("y").shape == (20, 1)


EXAMPLES: Mapping[str, Any] = {
    "bool": [[True, False]],
    "bfloat16": np.array([[1.5, -2.0]], ml_dtypes.bfloat16),
    "bytes": np.array([[b"", b"\xff\x00 text"]], object),
    **{dtype: [[0, 255]] for dtype in ("uint8", "uint16", "uint32", "uint64")},
    "uint64": [[0, 2**64 - 1]],
    **{dtype: [[-128, 127]] for dtype in ("int8", "int16", "int32")},
    "int64": [[-(2**63), 2**63 - 1]],
    **{dtype: [[1.5, -2.0]] for dtype in ("float16", "float32", "float64")},
}


def example(dtype: Any) -> Any:
    return np.array(EXAMPLES[dtype], NUMPY[dtype])


def test_every_datatype_comes_back_as_it_was_sent_raw(client: Any) -> None:
    inputs = [
        # Triton's client takes BF16 as float32.
        tensor(dtype, example(dtype).astype(np.float32) if dtype == "bfloat16" else example(dtype), datatype)
        for dtype, datatype in DATATYPES.items()
    ]
    answer = client.infer("echo", inputs)
    for dtype in DATATYPES:
        assert answer.as_numpy(dtype).tolist() == example(dtype).tolist(), dtype


CONTENTS = {
    "bool": "bool",
    **dict.fromkeys(("int8", "int16", "int32"), "int"),
    **dict.fromkeys(("uint8", "uint16", "uint32"), "uint"),
    "int64": "int64",
    "uint64": "uint64",
    "float32": "fp32",
    "float64": "fp64",
    "bytes": "bytes",
}


def typed(dtype: str, values: list[Any], into: str | None = None) -> Message:
    """A request to the model of one datatype."""
    request = Request(model_name=f"echo {dtype}", id="t")
    made = request.inputs.add(name=dtype, datatype=DATATYPES[dtype], shape=[1, 2])  # type: ignore[index]
    getattr(made.contents, f"{into or CONTENTS[dtype]}_contents").extend(values)
    return request


@pytest.fixture(scope="module")
def singles() -> Iterator[Running]:
    with serving(a_server(singles=True)) as running:
        yield running


@pytest.mark.parametrize("dtype", CONTENTS)
def test_values_in_typed_contents_are_answered_raw(singles: Running, dtype: str) -> None:
    answer = asked(singles, typed(dtype, example(dtype).ravel().tolist()))
    assert [output.datatype for output in answer.outputs] == [DATATYPES[dtype]]  # type: ignore[index]
    assert not answer.outputs[0].HasField("contents")
    if dtype == "bytes":
        assert answer.raw_output_contents[0] == b"\0\0\0\0\x07\0\0\0\xff\x00 text"
    else:
        assert answer.raw_output_contents[0] == example(dtype).tobytes()


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (typed("int8", [1, 128]), "beyond INT8"),
        (typed("uint8", [1, 256]), "beyond UINT8"),
        (typed("int64", [1]), "has 1 values"),
        (typed("int64", [1, 2], "int"), "values of INT64 are in contents.int64_contents"),
        (typed("float16", [1.0, 2.0], "fp32"), "no list for FP16: send raw_input_contents"),
        (Request(model_name="echo int64", inputs=[{"name": "int64", "datatype": "INT64", "shape": [1, 2]}]),
         "and there is nothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_typed_contents_that_do_not_fit_are_refused(singles: Running, request_: Message, said: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        asked(singles, request_)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert said in caught.value.details()


def test_raw_and_typed_contents_together_are_refused(singles: Running) -> None:
    request = typed("int64", [1, 2])
    request.raw_input_contents.append(bytes(16))
    with pytest.raises(grpc.RpcError, match="send one of them"):
        asked(singles, request)


@pytest.mark.parametrize(
    ("call", "status", "said"),
    [
        (lambda client: client.infer("smu", summands()), "NOT_FOUND", "did you mean 'sum'?"),
        (lambda client: client.infer("sum", summands(), "9"), "NOT_FOUND", "has version '3'"),
        (lambda client: client.infer("sum", summands()[:1]), "INVALID_ARGUMENT", "also has 'n'"),
        (lambda client: client.infer("sum", summands() * 2), "INVALID_ARGUMENT", "is there twice"),
        (lambda client: client.infer("sum", summands(), outputs=[InferRequestedOutput("z")]),
         "INVALID_ARGUMENT", "the signature has 'y', 'label'"),
        (lambda client: client.infer("sum", summands(), outputs=[InferRequestedOutput("y", class_count=2)]),
         "INVALID_ARGUMENT", "parameters.classification"),
        (lambda client: client.infer("sum", summands(-1)), "INTERNAL", "ValueError: a bad sample"),
    ],
)  # fmt: skip
def test_what_is_wrong_has_its_code_and_says_so(
    client: Any, call: Callable[[Any], Any], status: str, said: str
) -> None:
    got, message = refused(lambda: call(client))
    assert got == status
    assert said in message


def test_a_failure_of_the_model_is_one_entry_of_the_log(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    status, message = refused(lambda: client.infer("sum", summands(-2)))
    assert status == "INTERNAL"
    assert "a bug of ours" not in message
    entries = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(entries) == 1
    assert message.split("id ")[-1] in entries[0].getMessage()


@pytest.mark.parametrize("bytes_", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
def test_what_is_no_message_is_refused(running: Running, bytes_: bytes) -> None:
    with grpc.insecure_channel(running.address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(bytes_)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "should be a message inference.ModelInferRequest" in caught.value.details()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_answered(client: Any, algorithm: str) -> None:
    answer = client.infer("sum", summands(rows=500), compression_algorithm=algorithm)
    assert answer.as_numpy("y").shape == (500, 1)


def test_parameters_of_sequences_and_priority_have_no_effect(client: Any) -> None:
    answer = client.infer(
        "sum", summands(), sequence_id=5, sequence_start=True, priority=1, parameters={"mine": "kept"}
    )
    assert answer.as_numpy("y").tolist() == [[1.0]]


def test_a_message_beyond_the_limit_is_refused_in_and_out() -> None:
    with serving(a_server(largest=1000)) as running:
        client = InferenceServerClient(running.address)
        assert client.infer("sum", summands(rows=10)).as_numpy("y").shape == (10, 1)
        assert refused(lambda: client.infer("sum", summands(rows=100)))[0] == "RESOURCE_EXHAUSTED"
        client.close()
        with grpc.insecure_channel(running.address) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ServerMetadata")
            assert call(b"")
            with pytest.raises(grpc.RpcError, match=r"should have at most 0\.001 MB"):
                call(bytes(1001))


def ongoing(running: Running) -> int:
    count: int = running.server.models["slow"].admission.ongoing
    return count


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_more_than_may_wait_are_refused_with_the_time_to_come_back() -> None:
    with serving(a_server(max_ongoing=1, max_queued=1)) as running:
        answers: queue.Queue[Any] = queue.Queue()
        client = InferenceServerClient(running.address)
        for _ in range(6):
            client.async_infer("slow", summands(), lambda result, error: answers.put(error))
        errors = [error for error in (answers.get(timeout=60) for _ in range(6)) if error]
        client.close()
        assert {error.status() for error in errors} == {"StatusCode.RESOURCE_EXHAUSTED"}
        assert len(errors) == 4

        with grpc.insecure_channel(running.address) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            body = slow_request().SerializeToString()
            calls = [call.future(body) for _ in range(3)]
            refusal = next(each for each in calls if each.exception(timeout=60) is not None)
            assert ("retry-after", "1") in [tuple(pair) for pair in refusal.trailing_metadata()]


def slow_request(identity: str = "") -> Message:
    request = Request(model_name="slow", id=identity)
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend((1, 2))
    request.inputs.add(name="n", datatype="INT64", shape=[1, 1]).contents.int64_contents.append(7)
    return request


def test_a_request_ends_at_its_clients_deadline_and_frees_its_slot(running: Running, client: Any) -> None:
    began = time.monotonic()
    status, _ = refused(lambda: client.infer("slow", summands(), client_timeout=0.1))
    assert status == "DEADLINE_EXCEEDED"
    assert time.monotonic() - began < SLOW_S
    wait_for(lambda: ongoing(running) == 0)


def test_a_request_ends_at_the_time_that_it_asks_for(running: Running, client: Any) -> None:
    status, message = refused(lambda: client.infer("slow", summands(), timeout=100_000))
    assert status == "DEADLINE_EXCEEDED"
    assert "was not answered within 0.1 s" in message
    wait_for(lambda: ongoing(running) == 0)


def test_a_request_that_is_cancelled_frees_its_slot(running: Running) -> None:
    with grpc.insecure_channel(running.address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        waiting = call.future(slow_request().SerializeToString())
        wait_for(lambda: ongoing(running) == 1)
        waiting.cancel()
        wait_for(lambda: ongoing(running) == 0)


def test_a_version_that_goes_answers_what_it_has() -> None:
    with serving(server := a_server()) as running:
        client = InferenceServerClient(running.address)
        answers: queue.Queue[Any] = queue.Queue()
        client.async_infer("slow", summands(), lambda result, error: answers.put((result, error)))
        wait_for(lambda: ongoing(running) == 1)
        running.ask(lambda: server.retire("slow", "3"))
        assert not client.is_model_ready("slow")
        assert refused(lambda: client.infer("slow", summands()))[0] == "UNAVAILABLE"
        result, error = answers.get(timeout=30)
        assert error is None
        assert result.as_numpy("y").tolist() == [[1.0]]
        client.close()


def test_the_asyncio_client_is_answered(running: Running) -> None:
    async def ask() -> list[Any]:
        async with tritonclient.grpc.aio.InferenceServerClient(running.address) as client:
            answers = await asyncio.gather(*(client.infer("sum", summands(at)) for at in range(20)))
            return [answer.as_numpy("label").item() for answer in answers]

    assert asyncio.run(ask()) == list(range(20))


def test_large_tensors_are_answered(client: Any) -> None:
    answer = client.infer("sum", summands(rows=20_000))
    assert answer.as_numpy("y")[-1] == 79_997


def test_statistics_count_what_was_answered_and_what_was_not() -> None:
    with serving(a_server()) as running:
        client = InferenceServerClient(running.address)
        client.infer("sum", summands(rows=3))
        refused(lambda: client.infer("sum", summands()[:1]))
        (counted,) = client.get_inference_statistics("sum").model_stats
        client.close()
    assert (counted.inference_count, counted.execution_count) == (3, 1)
    stats = counted.inference_stats
    assert (stats.success.count, stats.fail.count) == (1, 1)
    assert stats.compute_infer.ns > 0
    assert stats.compute_input.count == stats.compute_output.count == 1


class Streamed:
    """Answers of a stream in the order in which they came."""

    def __init__(self, client: Any, **options: Any) -> None:
        self._client, self._answers = client, queue.Queue[Any]()
        client.start_stream(callback=lambda result, error: self._answers.put(error or result), **options)

    def ask(self, model: str, inputs: list[Any], **options: Any) -> None:
        self._client.async_stream_infer(model, inputs, **options)

    def all(self) -> list[Any]:
        self._client.stop_stream()
        return [self._answers.get_nowait() for _ in range(self._answers.qsize())]


def final(answer: Any) -> bool:
    last: bool = answer.get_response().parameters["triton_final_response"].bool_param
    return last


def test_a_stream_is_answered_in_order_and_goes_on_after_an_error(client: Any) -> None:
    stream = Streamed(client)
    for at in range(30):
        stream.ask("nope" if at == 3 else "sum", summands(-1 if at == 5 else at), request_id=str(at))
    answers = stream.all()
    errors = {at: str(answer) for at, answer in enumerate(answers) if isinstance(answer, Exception)}
    assert len(answers) == 30
    assert "this server has" in errors.pop(3)
    assert "a bad sample" in errors.pop(5)
    assert not errors
    right = [answer for answer in answers if not isinstance(answer, Exception)]
    assert [answer.get_response().id for answer in right] == [str(at) for at in range(30) if at not in (3, 5)]
    assert all(map(final, right))


def test_an_answer_comes_before_the_next_request_of_the_stream(client: Any) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error or result.as_numpy("label").item()))
    for at in range(3):
        client.async_stream_infer("sum", summands(at))
        assert answers.get(timeout=30) == at
    client.stop_stream()


def test_requests_of_a_stream_share_forward_passes() -> None:
    with serving(a_server(max_ongoing=16)) as running:
        client = InferenceServerClient(running.address)
        stream = Streamed(client)
        for _ in range(9):
            stream.ask("slow", summands())
        assert len(stream.all()) == 9
        (counted,) = client.get_inference_statistics("slow").model_stats
        client.close()
    assert counted.execution_count <= 5


def test_a_model_may_answer_many_times_and_says_which_answer_is_the_last(client: Any) -> None:
    stream = Streamed(client)
    stream.ask("counting", [tensor("n", [3], "INT64")], request_id="a", enable_empty_final_response=True)
    answers = stream.all()
    assert [answer.as_numpy("at").tolist() for answer in answers[:3]] == [[0], [1], [2]]
    assert [final(answer) for answer in answers] == [False, False, False, True]
    assert [len(answer.get_response().outputs) for answer in answers] == [1, 1, 1, 0]
    assert {answer.get_response().id for answer in answers} == {"a"}


def test_the_empty_last_answer_is_only_for_those_who_ask(client: Any) -> None:
    stream = Streamed(client)
    stream.ask("counting", [tensor("n", [2], "INT64")])
    assert [final(answer) for answer in stream.all()] == [False, False]


def test_requests_of_such_a_model_are_answered_side_by_side(client: Any) -> None:
    stream = Streamed(client)
    for name in ("a", "b"):
        stream.ask("counting", [tensor("n", [5], "INT64")], request_id=name)
    ids = [answer.get_response().id for answer in stream.all()]
    assert sorted(ids) == ["a"] * 5 + ["b"] * 5
    assert ids != sorted(ids)


def test_such_a_request_ends_at_the_time_that_it_asks_for(running: Running, client: Any) -> None:
    stream = Streamed(client)
    stream.ask("counting", [tensor("n", [10_000], "INT64")], timeout=200_000)
    *answers, error = stream.all()
    assert len(answers) >= 1
    assert "was not answered within 0.2 s" in error.message()
    assert running.server.models["counting"].admission.ongoing == 0


def test_a_strict_stream_ends_with_the_code_of_the_first_error(client: Any) -> None:
    stream = Streamed(client, headers={"triton_grpc_error": "true"})
    stream.ask("sum", summands(1))
    stream.ask("nope", summands(2))
    answer, error = stream.all()
    assert answer.as_numpy("label").tolist() == [1]
    assert error.status() == "StatusCode.NOT_FOUND"


def test_what_is_no_message_is_an_error_in_the_stream(running: Running) -> None:
    with grpc.insecure_channel(running.address) as channel:
        call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        bodies = [b"\xff\xff", slow_request("after").SerializeToString()]
        wrong, right = map(StreamResponse.FromString, call(iter(bodies), timeout=30))
    assert "should be a message" in wrong.error_message
    assert right.infer_response.id == "after"


def test_a_stream_that_is_cancelled_frees_its_slots(running: Running) -> None:
    with grpc.insecure_channel(running.address) as channel:
        call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        answers = call(iter([slow_request().SerializeToString()] * 12))
        wait_for(lambda: ongoing(running) == 4)
        answers.cancel()
        wait_for(lambda: ongoing(running) == 0)
    assert running.server.models["slow"].admission.waiting == 0
    assert running.server.models["slow"].versions["3"].ongoing == 0


def test_the_asyncio_client_streams(running: Running) -> None:
    async def ask() -> list[Any]:
        async def requests() -> Any:
            for at in range(5):
                yield {"model_name": "sum", "inputs": summands(at), "request_id": str(at)}

        async with tritonclient.grpc.aio.InferenceServerClient(running.address) as client:
            answers = client.stream_infer(requests())
            return [(error, result.as_numpy("label").item()) async for result, error in answers]

    assert asyncio.run(ask()) == [(None, at) for at in range(5)]
