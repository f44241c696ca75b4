"""Versions of a model beside each other under load: shares, sticky keys, a shadow, and what is lost."""

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from summing import BODY, Load, load, write

from raystack import config
from raystack.config.split import Shadow, Split, Sticky
from raystack.errors import ServingError
from raystack.plan import ServePlan, plan_serving

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

TINY = Path(__file__).parents[1] / "tiny" / "config.yaml"
NAME = "split"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("split")
    steps = {"one": 1, "two": 2, "broken": 3}
    return {name: write(home / name, step, broken=name == "broken") for name, step in steps.items()}


@pytest.fixture(scope="module")
def plan(models: dict[str, str]) -> Callable[..., ServePlan]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])

    def make(
        model: str,
        *overrides: str,
        sticky: Sticky | None = None,
        shadow: Shadow | None = None,
        **shares: float,
    ) -> ServePlan:
        small = ["serving.cpus_per_replica=0.25", f"serving.name={NAME}", f"serving.port={port}"]
        small += ["resources.wait_s=120"]
        made = plan_serving(config.load(TINY, [f"serving.model={models[model]}", *small, *overrides]))
        if not shares and shadow is None and sticky is None:
            return made
        split = Split(
            models={models[name]: share for name, share in shares.items()}, sticky=sticky, shadow=shadow
        )
        return replace(made, serving=made.serving.model_copy(update={"split": split}))

    return make


@pytest.fixture(scope="module")
def url(ray_cluster: str, plan: Callable[..., ServePlan]) -> Iterator[str]:
    from raystack.serving.deploy import deploy, undeploy

    yield deploy(plan("one")).links["url"]
    undeploy(NAME)


async def done(function: Callable[..., object], *arguments: object) -> None:
    await asyncio.to_thread(function, *arguments)


async def shared(running: Load, requests: int) -> Counter[str]:
    """Answers by version from now on, of so many requests at least."""
    before = Counter(running.seen)
    async with asyncio.timeout(60):
        while (running.seen - before).total() < requests:
            await asyncio.sleep(0.05)
    return running.seen - before


def within(found: Counter[str], share: float) -> bool:
    """Whether the second version's part is as expected, within 4 standard deviations."""
    count, total = found["version 2"], found.total()
    return abs(count - total * share) <= 4 * (total * share * (1 - share)) ** 0.5 + 8


def applications() -> set[str]:
    from ray import serve

    return set(serve.status().applications)


def test_from_one_version_to_the_other_without_a_failed_request(
    url: str, plan: Callable[..., ServePlan]
) -> None:
    from raystack.serving.split import steer

    async def run() -> Load:
        async with load(url) as running:
            await done(steer.add, plan("one", two=0.0), NAME)
            assert set(running.seen) == {"version 1"}
            for share in (0.0, 0.05, 0.5, 1.0):
                await done(steer.steer, plan("one", two=share), NAME)
                assert within(await shared(running, 400), share)
            await done(steer.take_over, plan("two"), NAME)
            await done(steer.remove, plan("two"), NAME)
            assert set(await shared(running, 100)) == {"version 2"}
        return running

    running = asyncio.run(run())
    assert set(running.seen) == {"version 1", "version 2"}
    assert applications() == {NAME}
    rows = {Path(row.version).name: row for row in steer.seen(NAME)}
    assert rows["one"].requests == rows["one"].latency[-1] > 300
    assert rows["two"].requests > 600
    assert rows["one"].errors == rows["two"].errors == 0
