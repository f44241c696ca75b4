"""The routes, without a socket: httpx speaks to the ASGI application."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx
import numpy as np
import pytest

from raystack import __version__
from raystack.errors import Problem, ServingError
from raystack.serving.description import EXTENSIONS
from raystack.serving.endpoint import Endpoint
from raystack.serving.engine import ModelEngine
from raystack.serving.protocol import Contract
from raystack.serving.protocol.tensors import Array
from raystack.serving.server import Admission, Model, Server, Version

GOOD: dict[str, Any] = {
    "id": "r1",
    "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]},
        {"name": "n", "datatype": "INT64", "shape": [2, 1], "data": [5, 6]},
    ],
}


def model(inputs: Mapping[str, Array]) -> dict[str, Array]:
    if (inputs["n"] == -1).any():
        raise ServingError(Problem("task", rule="the task raised: ValueError: a bad sample"))
    if (inputs["n"] == -2).any():
        raise KeyError("a bug of ours")
    return {"y": inputs["x"].sum(1, keepdims=True, dtype=np.float32), "label": inputs["n"][:, 0]}


def visit(
    contract: Contract,
    talk: Callable[[httpx.AsyncClient], Awaitable[Any]],
    max_ongoing: int = 4,
    max_queued: int = 4,
) -> Any:
    async def run() -> Any:
        server = Server()
        server.add(Model("demo", Admission(max_ongoing, max_queued)))
        server.put(Version(contract, ModelEngine(contract.signature, model, 8, 0.02), "ready"))
        transport = httpx.ASGITransport(Endpoint(server))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await talk(client)

    return asyncio.run(run())


def sent_n(value: int) -> dict[str, Any]:
    return {"inputs": [GOOD["inputs"][0], {**GOOD["inputs"][1], "data": [5, value]}]}


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/", {"status": "alive"}),
        ("/v2", {"name": "raystack", "version": __version__, "extensions": list(EXTENSIONS)}),
        ("/v2/", {"name": "raystack", "version": __version__, "extensions": list(EXTENSIONS)}),
        ("/v2/models", {"models": ["demo"]}),
        ("/v1/models", {"models": ["demo"]}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/demo/ready", {"name": "demo", "ready": True}),
        ("/v2/models/demo/versions/3/ready", {"name": "demo", "ready": True}),
    ],
)
def test_get(contract: Contract, path: str, answer: object) -> None:
    response = visit(contract, lambda client: client.get(path))
    assert (response.status_code, response.json()) == (200, answer)
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/v2/models/demo", "/v2/models/demo/versions/3"])
def test_metadata(contract: Contract, path: str) -> None:
    assert visit(contract, lambda client: client.get(path)).json() == contract.metadata()


@pytest.mark.parametrize("path", ["/v2/models/demo/infer", "/v2/models/demo/versions/3/infer"])
def test_infer(contract: Contract, path: str) -> None:
    response = visit(contract, lambda client: client.post(path, json=GOOD))
    assert response.status_code == 200
    assert response.json() == {
        "model_name": "demo",
        "model_version": "3",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [2, 1], "data": [3.0, 7.0]},
            {"name": "label", "datatype": "INT64", "shape": [2], "data": [5, 6]},
        ],
        "id": "r1",
    }


def test_infer_answers_in_binary(contract: Contract) -> None:
    config = {**GOOD, "parameters": {"binary_data_output": True}}
    response = visit(contract, lambda client: client.post("/v2/models/demo/infer", json=config))
    length = int(response.headers["Inference-Header-Content-Length"])
    assert response.headers["content-type"] == "application/octet-stream"
    assert np.frombuffer(response.content[length : length + 8], "<f4").tolist() == [3.0, 7.0]
    assert np.frombuffer(response.content[length + 8 :], "<i8").tolist() == [5, 6]


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v2/models/other", 404, "model 'other': this server has 'demo'"),
        ("POST", "/v2/models/other/infer", 404, "model 'other': this server has 'demo'"),
        ("GET", "/v2/models/demo/versions/4", 404, "model 'demo', version '4': this server has version '3'"),
        ("GET", "/v3/models", 404, "/v3/models: there is no such path; this server has /v2/models/demo"),
        ("GET", "/v2/models/demo/infer", 405, "/v2/models/demo/infer: answers POST (got GET)"),
        ("POST", "/v2/models/demo", 405, "/v2/models/demo: answers GET, HEAD (got POST)"),
    ],
)
def test_errors_say_what_there_is(
    contract: Contract, method: str, path: str, status: int, message: str
) -> None:
    response = visit(contract, lambda client: client.request(method, path))
    assert (response.status_code, response.json()) == (status, {"error": message})


@pytest.mark.parametrize("request_id", [None, "r1"])
@pytest.mark.parametrize(
    ("sample", "told", "logged"),
    [
        (-1, "task: the task raised: ValueError: a bad sample", "a bad sample"),
        (-2, "the model failed", "a bug"),
    ],
)
def test_a_model_that_raises_is_a_500_and_one_entry_in_the_log_under_its_id(
    contract: Contract,
    caplog: pytest.LogCaptureFixture,
    sample: int,
    told: str,
    logged: str,
    request_id: str | None,
) -> None:
    sent = {**sent_n(sample), "id": request_id} if request_id else sent_n(sample)
    response = visit(contract, lambda client: client.post("/v2/models/demo/infer", json=sent))
    message = response.json()["error"]
    assert response.status_code == 500
    assert told in message
    assert (request_id is not None) == ("request 'r1'" in message)
    [entry] = caplog.records
    assert message.rpartition(" ")[2] in entry.getMessage()
    assert (request_id is not None) == ("request 'r1'" in entry.getMessage())
    assert logged in caplog.text


def test_neighbours_of_a_failure_are_answered(contract: Contract) -> None:
    async def talk(client: httpx.AsyncClient) -> list[int]:
        requests = [client.post("/v2/models/demo/infer", json=sent_n(value)) for value in (1, -1, 3)]
        return [response.status_code for response in await asyncio.gather(*requests)]

    assert visit(contract, talk) == [200, 500, 200]


def test_a_full_queue_is_a_429(contract: Contract) -> None:
    async def talk(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(client.post("/v2/models/demo/infer", json=GOOD) for _ in range(5)))

    responses = visit(contract, talk, max_ongoing=1, max_queued=2)
    assert sorted(response.status_code for response in responses) == [200, 200, 200, 429, 429]
    refused = next(response for response in responses if response.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert refused.json() == {
        "error": (
            "queue: 1 requests are worked on and 2 wait, which is all that this server takes; try again later"
        ),
    }
