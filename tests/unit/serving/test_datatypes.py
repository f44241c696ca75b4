"""Every datatype through a server: Triton's client in its four mixes, and raystack's own."""

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import uvicorn
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from raystack.errors import ServingError
from raystack.outcome import Outcome
from raystack.serving.client import ServedModel
from raystack.serving.endpoint import Endpoint
from raystack.serving.engine import ModelEngine
from raystack.serving.protocol import Contract
from raystack.serving.protocol.tensors import DATATYPES, Array
from raystack.serving.protocol.values import to_array
from raystack.serving.server import Admission, Model, Server, Version
from raystack.task import Dtype, Signature, TensorSpec

DTYPES: tuple[Dtype, ...] = tuple(DATATYPES)
SPECS = tuple(TensorSpec(dtype, dtype, (-1, 2)) for dtype in DTYPES)
CONTRACT = Contract("echo", "1", Signature(SPECS, SPECS))
VALUES: dict[Dtype, list[list[Any]]] = {
    **{dtype: [[0, 1], [2, 3], [4, 5]] for dtype in DTYPES},
    "bool": [[True, False]] * 3,
    "bytes": [["", "grün"]] * 3,
}


def echo(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    return inputs


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server of a model that answers its inputs."""
    server = Server()
    server.add(Model("echo", Admission(4, 4)))
    server.put(Version(CONTRACT, ModelEngine(CONTRACT.signature, echo, 8, 0), "ready"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(Endpoint(server), log_level="warning", lifespan="off")
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, args=([listener],))
        thread.start()
        until = time.monotonic() + 60
        while not running.started:
            assert time.monotonic() < until
            time.sleep(0.01)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        running.should_exit = True
        thread.join()


def as_client(dtype: Dtype) -> Array:
    """The values as Triton's client takes them: it has no bfloat16."""
    return to_array(VALUES[dtype], "float32" if dtype == "bfloat16" else dtype)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_triton_s_client(address: str, binary_in: bool, binary_out: bool) -> None:
    inputs = []
    for dtype in DTYPES:
        tensor = InferInput(dtype, [3, 2], DATATYPES[dtype])
        tensor.set_data_from_numpy(as_client(dtype), binary_data=binary_in or dtype == "bfloat16")
        inputs.append(tensor)
    outputs = [InferRequestedOutput(dtype, binary_data=binary_out) for dtype in DTYPES]
    client = InferenceServerClient(address)
    answer = client.infer("echo", inputs, outputs=outputs, request_id="7", priority=1, timeout=60_000_000)
    assert answer.get_response()["id"] == "7"
    for dtype in DTYPES:
        got = answer.as_numpy(dtype)
        expected = as_client(dtype)
        if dtype == "bytes" and not binary_out:
            expected = np.array(VALUES[dtype], object)
        assert got.tolist() == expected.tolist()
    client.close()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_triton_s_client_compresses(address: str, algorithm: str) -> None:
    contents = [InferInput(dtype, [3, 2], DATATYPES[dtype]) for dtype in DTYPES]
    for tensor, dtype in zip(contents, DTYPES, strict=True):
        tensor.set_data_from_numpy(as_client(dtype))
    client = InferenceServerClient(address)
    answer = client.infer(
        "echo",
        contents,
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert answer.as_numpy("int8").tolist() == VALUES["int8"]
    client.close()


def test_raystack_s_own_client(address: str) -> None:
    served = ServedModel(f"http://{address}/v2/models/echo", Outcome())
    answer = served.predict({dtype: VALUES[dtype] for dtype in DTYPES})
    for dtype in DTYPES:
        assert answer[dtype].dtype == to_array(VALUES[dtype], dtype).dtype
        assert answer[dtype].tolist() == to_array(VALUES[dtype], dtype).tolist()
    nothing = np.full((3, 2), np.nan, np.float32)
    answer = served.predict({dtype: VALUES[dtype] for dtype in DTYPES} | {"float32": nothing})
    np.testing.assert_array_equal(answer["float32"], nothing)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"int8": [[0.5, 1]] * 3}, "input 'int8': data holds values that are not int8"),
        ({"uint8": [[256, 1]] * 3}, "input 'uint8': data holds values beyond uint8, 0 to 255"),
        ({"float16": [[1, True]] * 3}, "input 'float16': data holds values that are not float16"),
        ({"float64": [[1], [2]]}, "input 'float64': the signature says shape"),
        ({"x": [1]}, "inputs: the model's inputs are"),
    ],
)
def test_raystack_s_own_client_converts_nothing_in_silence(
    address: str, changed: dict[str, Any], message: str
) -> None:
    served = ServedModel(f"http://{address}/v2/models/echo", Outcome())
    values: dict[str, Any] = {dtype: VALUES[dtype] for dtype in DTYPES}
    with pytest.raises(ServingError) as raised:
        served.predict(values | changed)
    assert message in str(raised.value)
