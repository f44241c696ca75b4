"""What Triton's client asks over HTTP, beside predictions."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from raystack import __version__
from tests.unit.serving.http.triton_clients import Client
from tests.unit.serving.http.web import Sum, Web, running, serving, version


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    server = serving()
    server.put(version("2", state="unavailable"))
    server.put(version("3", Sum()))
    with running(server) as web:
        yield web


@pytest.fixture
def client(web: Web) -> Iterator[Any]:
    with Client(web.address, concurrency=4) as client:
        yield client


def inputs(rows: int = 2) -> list[Any]:
    x, n = InferInput("x", [rows, 2], "FP32"), InferInput("n", [rows, 1], "INT64")
    x.set_data_from_numpy(np.ones((rows, 2), np.float32))
    n.set_data_from_numpy(np.arange(rows, dtype=np.int64)[:, None])
    return [x, n]


def test_live_ready_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("demo")
    assert client.is_model_ready("demo", "3")
    assert not client.is_model_ready("demo", "2")
    assert not client.is_model_ready("other")
    server = client.get_server_metadata()
    assert (server["name"], server["version"]) == ("raystack", __version__)
    model = client.get_model_metadata("demo")
    assert model["versions"] == ["3"]
    assert model["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [-1, 2]}


def test_config_has_no_batch_in_its_sizes(client: Any) -> None:
    config = client.get_model_config("demo", "3")
    assert (config["name"], config["max_batch_size"]) == ("demo", 8)
    assert config["input"][0] == {"name": "x", "data_type": "TYPE_FP32", "dims": [2]}
    assert config["output"][1] == {"name": "label", "data_type": "TYPE_INT64", "dims": []}


def test_requests_at_the_same_time(client: Any) -> None:
    asked = [
        client.async_infer("demo", inputs(rows), request_id=str(rows), outputs=[InferRequestedOutput("y")])
        for rows in (1, 2, 3, 20)
    ]
    for rows, request in zip((1, 2, 3, 20), asked, strict=True):
        answer = request.get_result()
        assert answer.get_response()["id"] == str(rows)
        assert answer.as_numpy("y").tolist() == [[2.0]] * rows
        assert answer.as_numpy("label") is None


def test_statistics(client: Any) -> None:
    def stats() -> Any:
        [found] = client.get_inference_statistics("demo", "3")["model_stats"]
        return found

    before = stats()
    client.infer("demo", inputs(3))
    with pytest.raises(InferenceServerException):
        client.infer("demo", inputs(3)[:1])
    after = stats()
    assert after["inference_count"] == before["inference_count"] + 3
    assert after["execution_count"] == before["execution_count"] + 1
    assert after["last_inference"] > 1_600_000_000_000
    for phase in ("success", "queue", "compute_input", "compute_infer", "compute_output", "fail"):
        now, then = after["inference_stats"][phase], before["inference_stats"][phase]
        assert (now["count"], now["ns"] >= then["ns"]) == (then["count"] + 1, True), phase
    batch = next(each for each in after["batch_stats"] if each["batch_size"] == 3)
    assert batch["compute_infer"]["ns"] > 0
    assert [each["version"] for each in client.get_inference_statistics()["model_stats"]] == ["2", "3"]


def test_the_statistics_of_a_moment_count_the_same_requests_in_every_phase(client: Any) -> None:
    """Triton's perf_analyzer ends if they do not, and it asks while requests are worked on."""
    x, n = inputs(1)
    n.set_data_from_numpy(np.array([[300]], np.int64))
    asked = client.async_infer("demo", [x, n])
    seen = set()
    while not asked._greenlet.ready():
        [found] = client.get_inference_statistics("demo", "3")["model_stats"]
        phases = ("success", "queue", "compute_input", "compute_infer", "compute_output")
        seen.add(tuple(found["inference_stats"][phase]["count"] for phase in phases))
    asked.get_result()
    assert all(len(set(counts)) == 1 for counts in seen), seen


def test_the_repository_is_listed_and_not_changed(client: Any) -> None:
    assert client.get_model_repository_index() == [
        {"name": "demo", "version": "2", "state": "UNAVAILABLE", "reason": ""},
        {"name": "demo", "version": "3", "state": "READY", "reason": ""},
    ]
    for change in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="does not load or unload models on request"):
            change("demo")


def test_trace_settings(client: Any) -> None:
    assert client.get_trace_settings()["trace_level"] == ["OFF"]
    own = client.update_trace_settings("demo", {"trace_level": ["TIMESTAMPS"], "trace_rate": "500"})
    assert (own["trace_level"], own["trace_rate"]) == (["TIMESTAMPS"], "500")
    assert client.get_trace_settings()["trace_level"] == ["OFF"]
    assert client.update_trace_settings(settings={"trace_count": 10})["trace_count"] == "10"
    assert client.get_trace_settings("demo")["trace_count"] == "10"
    back = client.update_trace_settings("demo", {"trace_level": None, "trace_rate": None})
    assert (back["trace_level"], back["trace_rate"]) == (["OFF"], "1000")
    client.update_trace_settings(settings={"trace_count": None})
    for wrong, message in [
        ({"trace_lvel": ["OFF"]}, "did you mean 'trace_level'"),
        ({"trace_level": ["LOUD"]}, "should be a list of OFF, TIMESTAMPS, TENSORS"),
        ({"trace_rate": "often"}, "should be a whole number"),
        ({"trace_rate": {}}, "should be a string"),
    ]:
        with pytest.raises(InferenceServerException, match=message):
            client.update_trace_settings(settings=wrong)
    with pytest.raises(InferenceServerException, match="model 'other'"):
        client.get_trace_settings("other")


def test_log_settings(client: Any) -> None:
    assert client.get_log_settings()["log_verbose_level"] == 0
    assert client.update_log_settings({"log_verbose_level": 2, "log_info": False}) == {
        "log_file": "",
        "log_info": False,
        "log_warning": True,
        "log_error": True,
        "log_verbose_level": 2,
        "log_format": "default",
    }
    for wrong, message in [
        ({"log_inf": True}, "did you mean 'log_info'"),
        ({"log_info": 1}, "should be true or false"),
        ({"log_verbose_level": -1}, "should be a whole number from 0"),
        ({"log_verbose_level": True}, "should be a whole number from 0"),
        ({"log_format": "xml"}, "should be default or ISO8601"),
        ({"log_file": "/tmp/log"}, "cannot be set by a client"),
    ]:
        with pytest.raises(InferenceServerException, match=message):
            client.update_log_settings(wrong)


def test_shared_memory_is_refused(client: Any) -> None:
    for ask in (
        client.get_system_shared_memory_status,
        client.get_cuda_shared_memory_status,
        client.unregister_system_shared_memory,
        lambda: client.register_system_shared_memory("region", "/key", 64),
    ):
        with pytest.raises(InferenceServerException, match="shared memory is not supported"):
            ask()


def test_an_error_has_triton_s_form(client: Any) -> None:
    cases: list[tuple[Any, str]] = [
        (lambda: client.infer("other", inputs()), "404"),
        (lambda: client.infer("demo", inputs(), model_version="9"), "404"),
        (lambda: client.infer("demo", inputs(), model_version="2"), "503"),
        (lambda: client.infer("demo", inputs(), outputs=[InferRequestedOutput("y", class_count=2)]), "400"),
    ]
    for ask, status in cases:
        with pytest.raises(InferenceServerException) as raised:
            ask()
        error: Any = raised.value
        assert error.status() == status, error
