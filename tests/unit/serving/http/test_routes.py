"""Paths, methods and headers, good and bad, without a socket."""

import asyncio
import json
import random
from typing import Any

import httpx
import pytest

from raystack.serving.endpoint import Endpoint
from raystack.serving.engine import ModelEngine
from raystack.serving.protocol import Contract
from raystack.serving.server import Admission, Model, Server, Version
from tests.unit.serving.http.web import GOOD, SUM, Sum, serving, version


def visit(
    method: str, path: str, server: Server | None = None, root_path: str = "", **request: Any
) -> httpx.Response:
    if server is None:
        server = serving()
        server.put(version())

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(Endpoint(server), root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **request)

    return asyncio.run(run())


GETS = [
    "/",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models",
    "/v2/models/stats",
    "/v2/models/demo",
    "/v2/models/demo/ready",
    "/v2/models/demo/config",
    "/v2/models/demo/stats",
    "/v2/models/demo/versions/3",
    "/v2/models/demo/versions/3/ready",
    "/v2/models/demo/versions/3/config",
    "/v2/models/demo/versions/3/stats",
    "/v2/models/demo/trace/setting",
    "/v2/trace/setting",
    "/v2/logging",
    "/v1/models",
    "/v1/models/demo",
    "/v1/models/demo/versions/3",
]
POSTS = [
    "/v2/models/demo/infer",
    "/v2/models/demo/versions/3/infer",
    "/v2/repository/index",
    "/v2/repository/models/demo/load",
    "/v2/repository/models/demo/unload",
    "/v1/models/demo:predict",
    "/v1/models/demo/versions/3:predict",
]


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_its_body(path: str) -> None:
    got, head = visit("GET", path), visit("HEAD", path)
    assert (got.status_code, head.status_code, head.content) == (200, 200, b"")
    assert head.headers["content-type"] == got.headers["content-type"] == "application/json"
    if "stats" not in path:
        assert head.headers["content-length"] == str(len(got.content))


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        *(("DELETE", path, {"GET", "HEAD"}) for path in GETS if not path.endswith(("setting", "logging"))),
        ("DELETE", "/v2/logging", {"GET", "HEAD", "POST"}),
        *((method, path, {"POST"}) for path in POSTS for method in ("GET", "HEAD", "PUT")),
    ],
)
def test_another_method_is_a_405_that_says_which(method: str, path: str, allowed: set[str]) -> None:
    response = visit(method, path)
    assert response.status_code == 405
    assert set(response.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/demo/versions",
        "/v2/models/demo/infer/infer",
        "/v2/models//infer",
        "/v2/health",
        "/v2/repository/models/demo",
        "/v1/models/demo:explain",
        "/v1/models/:predict",
        "/v2/models/demo%2Finfer",
        "/" + "x" * 5000,
        "/v2/models/%ff%00%0a",
        "/v2/models/" + "%61" * 2000,
    ],
)
def test_a_path_that_is_none_is_a_404(path: str) -> None:
    response = visit("GET", path)
    assert response.status_code == 404
    assert len(response.json()["error"]) < 1000


def test_names_are_percent_encoded() -> None:
    server, contract = Server(), Contract("a model/ü", "1", SUM)
    server.add(Model(contract.name, Admission(4, 4)))
    server.put(Version(contract, ModelEngine(SUM, Sum(), 8, 0.0), "ready"))
    path = "/v2/models/a%20model%2F%C3%BC"
    assert visit("GET", path, server).json()["name"] == contract.name
    assert visit("POST", path + "/infer", server, json=GOOD).json()["model_name"] == contract.name


def test_paths_are_below_the_root_path() -> None:
    assert visit("GET", "/root/v2/models/demo", root_path="/root").json()["name"] == "demo"
    assert visit("POST", "/root/v2/models/d%65mo/infer", root_path="/root", json=GOOD).status_code == 200


def test_the_first_version_of_the_protocol() -> None:
    rows = {"instances": [{"x": [1, 2], "n": [5]}, {"x": [3, 4], "n": [6]}]}
    for path in ("/v1/models/demo:predict", "/v1/models/demo/versions/3:predict"):
        assert visit("POST", path, json=rows).json() == {
            "predictions": [{"y": [3.0], "label": 5}, {"y": [7.0], "label": 6}]
        }
    assert visit("GET", "/v1/models/demo").json() == {
        "name": "demo",
        "ready": True,
        "model_version_status": [
            {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ],
    }
    assert visit("POST", "/v1/models/demo:predict", json={"instances": []}).status_code == 400


def test_what_is_not_ready_is_a_503() -> None:
    server = serving()
    server.put(version(state="loading"))
    for path in ("/v2/health/ready", "/v2/models/demo/ready", "/v1/models/demo"):
        response = visit("GET", path, server)
        assert (response.status_code, response.json()["ready"]) == (503, False)
    assert visit("GET", "/v2/health/live", server).status_code == 200
    refused = visit("POST", "/v2/models/demo/infer", server, json=GOOD)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


def test_the_client_s_own_time_in_a_header() -> None:
    slow = {"inputs": [GOOD["inputs"][0], {**GOOD["inputs"][1], "data": [5, 500]}]}
    for name in ("x-request-timeout", "x-request-timeout-seconds"):
        late = visit("POST", "/v2/models/demo/infer", json=slow, headers={name: "0.1"})
        assert (late.status_code, late.json()["error"]) == (504, "request: was not answered within 0.1 s")
        for value in ("soon", "-1", "nan", "1" * 5000):
            response = visit("POST", "/v2/models/demo/infer", json=GOOD, headers={name: value})
            assert response.status_code == (200 if value.startswith("1") else 400), value
        assert visit("POST", "/v2/models/demo/infer", json=GOOD, headers={name: "0"}).status_code == 200


@pytest.mark.parametrize("body", ["[", "[]", '{"ready": 1}', "1", "\x00"])
def test_a_wrong_body_of_the_index_is_a_400(body: str) -> None:
    assert visit("POST", "/v2/repository/index", content=body).status_code == 400


def test_the_index_lists_what_is_ready_where_it_is_asked_to() -> None:
    server = serving()
    server.put(version("2", state="unavailable"))
    server.put(version("3"))
    assert len(visit("POST", "/v2/repository/index", server).json()) == 2
    assert [
        each["version"] for each in visit("POST", "/v2/repository/index", server, json={"ready": True}).json()
    ] == ["3"]


PIECES = (
    *[
        "v1",
        "v2",
        "models",
        "demo",
        "demo:predict",
        "infer",
        "stats",
        "repository",
        "index",
        "load",
        "versions",
        "3",
        "trace",
    ],
    *["setting", "logging", "systemsharedmemory", "%", "%zz", "..", "", "é"],
)
HEADERS = [
    "content-length",
    "content-encoding",
    "accept-encoding",
    "inference-header-content-length",
    "x-request-timeout",
    "traceparent",
    "content-type",
]
VALUES = ("", "0", "-1", "1" * 5000, "\xc3\xbc", "gzip", "gzip, x;q=a", "*", "chunked")
BODIES = (b"", b"{}", b"[" * 5000, b"\xff\xfe", json.dumps(GOOD).encode(), b'{"inputs": 1}', b'{"a": null}')


def nonsense(chance: random.Random) -> dict[str, Any]:
    """A scope with a path, a method and headers that may be anything."""
    path = "/" + "/".join(chance.choices(PIECES, k=chance.randint(0, 6)))
    path = chance.choice([path, *chance.choices(GETS + POSTS, k=2)])
    headers = [
        (chance.choice(HEADERS).encode(), chance.choice(VALUES).encode("latin-1"))
        for _ in range(chance.randint(0, 3))
    ]
    method = chance.choice(["GET", "POST", "POST", "HEAD", "PUT", "OPTIONS", "x"])
    raw = {"raw_path": path.encode()} if chance.random() < 0.5 else {}
    return {"type": "http", "method": method, "path": path, "headers": headers, **raw}


def test_nonsense_is_never_a_500() -> None:
    server = serving()
    server.put(version())
    endpoint, chance = Endpoint(server), random.Random(0)

    async def ask() -> int:
        scope, body = nonsense(chance), chance.choice(BODIES)
        answers: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            answers.append(message)

        await endpoint(scope, receive, send)
        assert len(answers) == 2, scope
        return int(answers[0]["status"])

    async def run() -> list[int]:
        return [await ask() for _ in range(3000)]

    statuses = asyncio.run(run())
    assert max(statuses) < 500
    assert {200, 400, 404, 405, 413, 415} <= set(statuses)
    assert server.models["demo"].admission.ongoing == 0
