"""The same model behind raystack and behind MLServer, asked the same by Triton's client, KServe's and curl.

What MLServer does otherwise, and the protocol or Triton as raystack does, is said where it is compared.
"""

import json
import queue
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException

from raystack.serving.protocol.tensors import DATATYPES, NUMPY
from tests.unit.serving.clients.both import VERSION, Both, a_server, serving, write_mlp
from tests.unit.serving.clients.peers import UNKNOWN, Peer, curl, kserve, mlserver
from tests.unit.serving.http.triton_clients import Client

pytestmark = pytest.mark.long

CHANCE = np.random.default_rng(0)
ROWS = CHANCE.normal(size=(5, 4)).astype(np.float32)
GOOD = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
DTYPES = [dtype for dtype in DATATYPES if dtype != UNKNOWN]
INFER = "/v2/models/mlp/infer"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Both, Peer]]:
    mlp = write_mlp(tmp_path_factory.mktemp("mlp"))
    folder = tmp_path_factory.mktemp("mlserver")
    with mlserver(mlp / "model.safetensors", folder) as peer, serving(a_server(mlp)) as own:
        yield own, peer


@pytest.fixture(scope="module")
def own(servers: tuple[Both, Peer]) -> Peer:
    return Peer(servers[0].web.address, servers[0].grpc)


@pytest.fixture(scope="module")
def peer(servers: tuple[Both, Peer]) -> Peer:
    return servers[1]


def rows(client: Any, array: Any = ROWS, **options: Any) -> list[Any]:
    tensor = client.InferInput("x", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array, **options)
    return [tensor]


def http(server: Peer, binary: bool = False, binary_answer: bool = False) -> Any:
    with Client(server.http) as client:
        chosen = [over_http.InferRequestedOutput("y", binary_data=binary_answer)]
        return client.infer("mlp", rows(over_http, binary_data=binary), outputs=chosen).as_numpy("y")


def grpc(server: Peer, **options: Any) -> Any:
    with over_grpc.InferenceServerClient(server.grpc) as client:
        return client.infer("mlp", rows(over_grpc), **options).as_numpy("y")


def test_outputs_are_equal_to_the_bit(own: Peer, peer: Peer) -> None:
    wanted = http(peer)
    assert wanted.dtype == np.float32
    assert wanted.shape == (5, 3)
    # MLServer has no binary data over HTTP; it is compared with its answer in JSON.
    for binary in (False, True):
        for binary_answer in (False, True):
            np.testing.assert_array_equal(http(own, binary, binary_answer), wanted)
    np.testing.assert_array_equal(grpc(peer), wanted)
    np.testing.assert_array_equal(grpc(own), wanted)
    np.testing.assert_array_equal(grpc(own, model_version=VERSION), grpc(peer, model_version=VERSION))
    np.testing.assert_array_equal(grpc(own, compression_algorithm="gzip"), wanted)


def test_asynchronous_answers_are_equal(own: Peer, peer: Peer) -> None:
    def asked(server: Peer) -> list[Any]:
        answers: queue.Queue[Any] = queue.Queue()
        with Client(server.http, concurrency=4) as client:
            handles = [client.async_infer("mlp", rows(over_http, binary_data=False)) for _ in range(4)]
            found = [handle.get_result().as_numpy("y") for handle in handles]
        with over_grpc.InferenceServerClient(server.grpc) as client:
            for _ in range(4):
                client.async_infer(
                    "mlp", rows(over_grpc), callback=lambda result, error: answers.put((result, error))
                )
            for _ in range(4):
                result, error = answers.get(timeout=60)
                assert error is None
                found.append(result.as_numpy("y"))
        return found

    np.testing.assert_array_equal(asked(own), asked(peer))


def test_a_stream_answers_what_single_requests_are_answered(own: Peer, peer: Peer) -> None:
    """MLServer's stream has messages of its own, which Triton's client does not read."""
    answers: queue.Queue[Any] = queue.Queue()
    with over_grpc.InferenceServerClient(own.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for at in range(5):
            client.async_stream_infer("mlp", rows(over_grpc, ROWS[at : at + 1]), request_id=str(at))
        found = [answers.get(timeout=60) for _ in range(5)]
        client.stop_stream()
    assert [error for _, error in found] == [None] * 5
    assert [result.get_response().id for result, _ in found] == list("01234")
    with over_grpc.InferenceServerClient(peer.grpc) as client:
        for at, (result, _) in enumerate(found):
            wanted = client.infer("mlp", rows(over_grpc, ROWS[at : at + 1])).as_numpy("y")
            np.testing.assert_array_equal(result.as_numpy("y"), wanted)


def tensors(client: Any, **options: Any) -> list[Any]:
    found = []
    for dtype in DTYPES:
        values: Any = np.array([["a", "grün"], ["", "xyz"]], object)
        if dtype != "bytes":
            values = np.array([[0, 1], [1, 0]], NUMPY[dtype])
        if NUMPY[dtype].kind in "iu":
            values[1] = np.iinfo(NUMPY[dtype]).min, np.iinfo(NUMPY[dtype]).max
        elif NUMPY[dtype].kind == "f":
            values[1] = np.finfo(NUMPY[dtype]).smallest_subnormal, -np.finfo(NUMPY[dtype]).max
        tensor = client.InferInput(dtype, [2, 2], DATATYPES[dtype])
        tensor.set_data_from_numpy(values, **options)
        found.append(tensor)
    return found


def missing(client: Any, **options: Any) -> Any:
    """The input that MLServer does not have, and raystack's `echo` does."""
    tensor = client.InferInput(UNKNOWN, [2, 2], "BF16")
    tensor.set_data_from_numpy(np.ones((2, 2), np.float32), **options)
    return tensor


def test_every_datatype_comes_back_as_it_was_sent(own: Peer, peer: Peer) -> None:
    with over_grpc.InferenceServerClient(peer.grpc) as theirs:
        wanted = theirs.infer("echo", tensors(over_grpc))
    with over_grpc.InferenceServerClient(own.grpc) as ours:
        found = ours.infer("echo", [*tensors(over_grpc), missing(over_grpc)])
    with Client(own.http) as ours:
        found_http = ours.infer("echo", [*tensors(over_http), missing(over_http)])
    for dtype in DTYPES:
        assert wanted.as_numpy(dtype) is not None
        for answer in (found, found_http):
            assert answer.as_numpy(dtype).dtype == wanted.as_numpy(dtype).dtype
            np.testing.assert_array_equal(answer.as_numpy(dtype), wanted.as_numpy(dtype))


def test_metadata_says_the_same_of_the_tensors(own: Peer, peer: Peer) -> None:
    def described(server: Peer) -> list[Any]:
        with Client(server.http) as client:
            http = client.get_model_metadata("mlp")
            http_ready = [client.is_model_ready(name) for name in ("mlp", "nope")]
        with over_grpc.InferenceServerClient(server.grpc) as client:
            grpc = client.get_model_metadata("mlp", as_json=True)
            grpc_ready = [client.is_server_live(), client.is_server_ready(), client.is_model_ready("mlp")]
        return [
            [[each.get(side) for side in ("name", "inputs", "outputs")] for each in (http, grpc)],
            http_ready,
            grpc_ready,
        ]

    assert described(own) == described(peer)


def test_curl_gets_the_same(own: Peer, peer: Peer) -> None:
    body = json.dumps({"id": "r1", "inputs": [GOOD]}).encode()
    answers = [curl(f"http://{server.http}{INFER}", body) for server in (own, peer)]
    assert [status for status, _ in answers] == [200, 200]
    found, wanted = (json.loads(answer) for _, answer in answers)
    assert [found[key] for key in ("id", "model_name", "model_version")] == ["r1", "mlp", VERSION]
    for key in ("name", "datatype", "shape", "data"):
        assert found["outputs"][0][key] == wanted["outputs"][0][key]
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/mlp", "/v2/models/mlp/ready"):
        assert curl(f"http://{own.http}{path}")[0] == curl(f"http://{peer.http}{path}")[0] == 200


REFUSED: dict[str, Any] = {
    "a body that is no JSON": "{",
    "a body that is no object": [],
    "no inputs": {},
    "an id that is no string": {"id": 5, "inputs": [GOOD]},
    "no such datatype": {"inputs": [{**GOOD, "datatype": "FOO"}]},
    "an input without a shape": {"inputs": [{"name": "x", "datatype": "FP32", "data": [1]}]},
    "an empty body": "",
}
STRICTER: dict[str, Any] = {
    "an empty list": {"inputs": []},
    "another name": {"inputs": [{**GOOD, "name": "z"}]},
    "another datatype": {"inputs": [{**GOOD, "datatype": "INT64"}]},
    "another shape": {"inputs": [{**GOOD, "shape": [1, 5]}]},
    "a shape of no size": {"inputs": [{**GOOD, "shape": [-1, 4]}]},
    "too few values": {"inputs": [{**GOOD, "data": [1, 2, 3]}]},
    "text": {"inputs": [{**GOOD, "data": ["a", 2, 3, 4]}]},
    "a truth value": {"inputs": [{**GOOD, "data": [True, 2, 3, 4]}]},
    "null": {"inputs": [{**GOOD, "data": [None, 2, 3, 4]}]},
    "a number that is no FP32": {"inputs": [{**GOOD, "data": [1e39, 2, 3, 4]}]},
    "no such output": {"inputs": [GOOD], "outputs": [{"name": "z"}]},
}
"""MLServer answers these, or ends with 500, because it does not compare a request with the metadata."""


def post(server: Peer, body: Any) -> httpx.Response:
    text = body if isinstance(body, str) else json.dumps(body)
    headers = {"Content-Type": "application/json"}
    return httpx.post(f"http://{server.http}{INFER}", content=text, headers=headers)


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_refuses_is_refused(own: Peer, peer: Peer, name: str) -> None:
    """MLServer's status is FastAPI's 422, Triton's is 400."""
    assert (post(own, REFUSED[name]).status_code, post(peer, REFUSED[name]).status_code) == (400, 422)


@pytest.mark.parametrize("name", STRICTER)
def test_what_it_does_not_check_is_refused_here(own: Peer, peer: Peer, name: str) -> None:
    found, theirs = post(own, STRICTER[name]), post(peer, STRICTER[name])
    assert found.status_code == 400
    assert set(found.json()) == {"error"}
    assert theirs.status_code in (200, 500)


@pytest.mark.parametrize(
    ("model", "version", "status", "code"),
    [("nope", "", "404", "NOT_FOUND"), ("mlp", "9", "404", "NOT_FOUND")],
)
def test_what_is_not_there_is_the_same_to_tritons_client(
    own: Peer, peer: Peer, model: str, version: str, status: str, code: str
) -> None:
    for server in (own, peer):
        with Client(server.http) as client:
            with pytest.raises(InferenceServerException) as refused:
                client.infer(model, rows(over_http, binary_data=False), model_version=version)
            assert refused.value.status() == status
        with over_grpc.InferenceServerClient(server.grpc) as client:
            with pytest.raises(InferenceServerException) as refused:
                client.infer(model, rows(over_grpc), model_version=version)
            assert refused.value.status() == f"StatusCode.{code}"


def test_kserves_client_gets_the_same(own: Peer, peer: Peer) -> None:
    """MLServer has neither binary data over HTTP nor the protocol's first version."""
    found, theirs = (kserve(f"http://{server.http}", server.grpc) for server in (own, peer))
    wanted = theirs["http"]["JSON"]
    for name in ("JSON", "JSON, an output chosen", "binary", "binary to JSON", "JSON to binary"):
        assert found["http"][name] == wanted, name
    for name in ("typed", "raw"):
        assert found["grpc"][name] == theirs["grpc"][name], name
    assert found["http"]["v1"] == {"predictions": np.reshape(wanted[3], (5, 3)).tolist()}
    for side in ("http", "grpc"):
        assert [found[side][name] for name in ("ready", "live", "model ready")] == [True] * 3
    assert found["http"]["v1 ready"] is True
    for side, name, refused in (
        ("http", "no such model", "'404 Not Found'"),
        ("http", "no such input", "'400 Bad Request'"),
        ("http", "too few columns", "'400 Bad Request'"),
        ("grpc", "no such input", "INVALID_ARGUMENT"),
        ("grpc", "too few columns", "INVALID_ARGUMENT"),
    ):
        assert refused in found[side][name], name
