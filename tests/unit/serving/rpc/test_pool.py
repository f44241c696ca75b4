"""Models that share a process: at most so many are in memory, and no request fails for one that goes."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import httpx
import pytest
from near import Near
from served import SUM, add_up

from raystack.config.serving import Serving
from raystack.errors import Problem, ServingError
from raystack.serving.engine import ModelEngine
from raystack.serving.protocol import Contract, RequestError
from raystack.serving.rest.body import Limits
from raystack.serving.server import Server, Version
from raystack.serving.several.gateway import Gateway
from raystack.serving.several.pool import Pool
from tests.unit.serving.http.web import GOOD


class Shelf:
    """Loads versions; `held` are the names of those that are not closed, `most` is how many there were."""

    def __init__(self) -> None:
        self.held: list[str] = []
        self.most = 0
        self.read: list[str] = []

    async def __call__(self, serving: Serving) -> Version:
        name = serving.name or ""
        self.read.append(name)
        self.held.append(name)
        self.most = max(self.most, len(self.held))
        await asyncio.sleep(0.001)
        if name == "broken":
            self.held.remove(name)
            raise ServingError(Problem("task", rule="no such layer"))
        shelf = self

        class Engine(ModelEngine):
            def close(self) -> None:
                super().close()
                shelf.held.remove(name)

        return Version(Contract(name, "3", SUM), Engine(SUM, add_up, 8, 0.001))


def names(*models: str) -> dict[str, Serving]:
    return {name: Serving(name=name, model="/models/a") for name in models}


def run(checked: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(checked, 60))


def test_the_one_that_was_used_least_recently_goes() -> None:
    async def checked() -> None:
        shelf = Shelf()
        pool = Pool(Server(), shelf)
        await pool.offer(names("a", "b", "c"), 2)
        for name in ("a", "b", "a", "c"):
            async with pool.use(name):
                pass
        assert shelf.held == ["a", "c"]
        async with pool.use("unknown"):
            pass
        assert shelf.read == ["a", "b", "c"]

    run(checked())


@pytest.mark.parametrize("most", [1, 2, 3])
def test_there_are_never_more_and_no_request_fails(most: int) -> None:
    async def checked() -> None:
        shelf, server = Shelf(), Server()
        pool = Pool(server, shelf)
        await pool.offer(names("a", "b", "c", "d"), most)
        transport = httpx.ASGITransport(Gateway(server, Near({}), pool, Limits()))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            asked = [client.post(f"/v2/models/{'abcd'[at % 4]}/infer", json=GOOD) for at in range(200)]
            answers = await asyncio.gather(*asked)
        assert [answer.status_code for answer in answers] == [200] * 200
        assert [answer.json()["model_name"] for answer in answers] == ["abcd"[at % 4] for at in range(200)]
        assert shelf.most == most

    run(checked())


def test_the_repository_says_what_is_loaded_and_loads_and_unloads() -> None:
    async def checked() -> None:
        shelf, server = Shelf(), Server()
        pool = Pool(server, shelf)
        server.repository = pool
        await pool.offer(names("a", "broken"), 2)
        transport = httpx.ASGITransport(Gateway(server, Near({}), pool, Limits()))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:

            async def states() -> dict[str, str]:
                index = (await client.post("/v2/repository/index", json={})).json()
                return {row["name"]: f"{row['state']} {row['reason']}".strip() for row in index}

            waits = "UNAVAILABLE it is loaded when it is asked for"
            assert await states() == {"a": waits, "broken": waits}
            assert (await client.get("/v2/health/ready")).status_code == 200
            assert (await client.get("/v2/models/a/ready")).status_code == 200
            assert (await client.post("/v2/repository/models/a/load")).status_code == 200
            assert (await states())["a"] == "READY"
            assert (await client.post("/v2/repository/models/a/unload")).status_code == 200
            assert (await states())["a"] == waits
            assert not shelf.held
            assert (await client.get("/v2/models/a")).json()["versions"] == ["3"]
            assert (await client.post("/v2/repository/models/z/load")).status_code == 404
            refused = await client.post("/v2/models/broken/infer", json=GOOD)
            assert (refused.status_code, "no such layer" in refused.json()["error"]) == (503, True)
            assert "no such layer" in (await states())["broken"]
            await client.post("/v2/models/broken/infer", json=GOOD)
            assert shelf.read.count("broken") == 1, "it is not tried again at once"

    run(checked())


def test_other_settings_let_go_of_what_has_changed() -> None:
    async def checked() -> None:
        shelf, server = Shelf(), Server()
        pool = Pool(server, shelf)
        await pool.offer(names("a", "b", "c"), 3)
        for name in "abc":
            await pool.load(name, {})
        changed = {"a": names("a")["a"], "b": Serving(name="b", model="/models/other")}
        async with pool.use("b"):
            offering = asyncio.create_task(pool.offer(changed, 3))
            await asyncio.sleep(0.01)
            assert not offering.done(), "a request that is there ends with the version that it began with"
        await offering
        assert shelf.held == ["a"]
        assert list(server.models) == ["a", "b"]
        await pool.load("b", {})
        await pool.offer(changed, 1)
        assert shelf.held == ["b"], "fewer may be loaded"
        with pytest.raises(RequestError, match="this server has"):
            await pool.load("c", {})

    run(checked())
