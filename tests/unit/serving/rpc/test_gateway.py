"""The gateway of a server of several models answers for the server, and has each model answer for itself."""

import asyncio
from typing import Any

import httpx
import pytest
from near import Near, none
from served import a_server

from raystack.serving.rest.body import Limits
from raystack.serving.server import Elsewhere, Server
from raystack.serving.several.gateway import Gateway
from raystack.serving.several.pool import Pool
from tests.unit.serving.http.web import GOOD


@pytest.fixture
def server() -> Server:
    """Two models that answer, one without a replica, and one that cannot be loaded."""
    server = Server()
    states = [
        Elsewhere(True),
        Elsewhere(True),
        Elsewhere(True, True, "7", "asleep"),
        Elsewhere(reason="no folder"),
    ]
    server.elsewhere = dict(zip(("sum", "slow", "asleep", "broken"), states, strict=True))
    return server


@pytest.fixture
def near() -> Near:
    alone = {name: a_server() for name in ("sum", "slow")}
    for name, server in alone.items():
        server.models = {name: server.models[name]}
    return Near(alone)


def client(server: Server, near: Near) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(Gateway(server, near, Pool(server, none), Limits(size=1000)))
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


def test_each_model_answers_what_names_it(server: Server, near: Near) -> None:
    async def checked() -> None:
        v1 = {"inputs": {"x": [[1, 2]], "n": [[5]]}}
        async with client(server, near) as asked:
            answer = (await asked.post("/v2/models/s%75m/infer", json=GOOD)).json()
            assert (answer["model_name"], answer["outputs"][0]["data"]) == ("sum", [3.0, 7.0])
            assert (await asked.post("/v1/models/slow:predict", json=v1)).json()["outputs"]["y"] == [[3.0]]
            assert (await asked.get("/v2/models/sum")).json()["versions"] == ["3"]
            assert (await asked.get("/v2/models/sum/ready")).status_code == 200
            refused = await asked.post("/v2/models/sum/infer", json={"inputs": []})
            assert (refused.status_code, "x" in refused.json()["error"]) == (400, True)
            assert (await asked.post("/v2/repository/models/sum/load")).status_code == 405
            large = await asked.post("/v2/models/sum/infer", content=b" " * 1001)
            assert large.status_code == 413
        assert set(near.asked) == {"sum", "slow"}

    asyncio.run(checked())


def test_a_head_is_a_get_without_its_body(server: Server, near: Near) -> None:
    async def checked() -> None:
        async with client(server, near) as asked:
            for path in ("/v2/models/sum", "/v2/models/s%75m/config", "/v2/models/sum/ready", "/v2/models"):
                got, head = await asked.get(path), await asked.head(path)
                assert (head.status_code, head.content) == (200, b"")
                assert head.headers.multi_items() == got.headers.multi_items()
                assert head.headers.get_list("content-length") == [str(len(got.content))]
            assert (await asked.head("/v2/models/stats")).status_code == 200

    asyncio.run(checked())


def test_it_answers_for_the_server(server: Server, near: Near) -> None:
    async def checked() -> None:
        names = ["sum", "slow", "asleep", "broken"]
        async with client(server, near) as asked:
            assert (await asked.get("/v2")).json()["name"] == "raystack"
            assert (await asked.get("/v2/health/live")).status_code == 200
            assert (await asked.get("/v2/models")).json() == {"models": names}
            assert (await asked.get("/v1/models")).json() == {"models": names}
            assert (await asked.get("/v2/trace/setting")).status_code == 200
            assert (await asked.get("/v2/health/ready")).status_code == 503
            unknown = await asked.post("/v2/models/summ/infer", json=GOOD)
            assert unknown.status_code == 404
            assert "did you mean 'sum'?" in unknown.json()["error"]
            assert not near.asked
            del server.elsewhere["broken"]
            assert (await asked.get("/v2/health/ready")).status_code == 200, "one without a replica is"

    asyncio.run(checked())


@pytest.mark.parametrize("only_ready", [False, True])
def test_the_index_has_all_models_and_wakes_none(server: Server, near: Near, *, only_ready: bool) -> None:
    wanted = [
        {"name": "asleep", "version": "7", "state": "READY", "reason": "asleep"},
        {"name": "broken", "version": "", "state": "UNAVAILABLE", "reason": "no folder"},
        {"name": "sum", "version": "3", "state": "READY", "reason": ""},
        {"name": "slow", "version": "3", "state": "READY", "reason": ""},
    ]

    async def checked() -> None:
        async with client(server, near) as asked:
            body: dict[str, Any] = {"ready": True} if only_ready else {}
            index = (await asked.post("/v2/repository/index", json=body)).json()
            assert index == [row for row in wanted if row["state"] == "READY" or not only_ready]
            counts = (await asked.get("/v2/models/stats")).json()["model_stats"]
            assert [row["name"] for row in counts] == ["sum", "slow"]
        assert set(near.asked) == {"sum", "slow"}

    asyncio.run(checked())
