"""A served model that is changed or loses a replica under load: no request fails."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from summing import Load, load, write

from raystack import config
from raystack.errors import ServingError
from raystack.plan import ServePlan, plan_serving

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

TINY = Path(__file__).parents[1] / "tiny" / "config.yaml"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("summing")
    steps = {"one": 1, "two": 2, "broken": 3}
    return {name: write(home / name, step, broken=name == "broken") for name, step in steps.items()}


@pytest.fixture(scope="module")
def plan(models: dict[str, str]) -> Callable[..., ServePlan]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])

    def make(model: str, *overrides: str) -> ServePlan:
        small = ["serving.cpus_per_replica=0.25", "serving.name=summing", f"serving.port={port}"]
        small += ["resources.wait_s=240"]
        return plan_serving(config.load(TINY, [f"serving.model={models[model]}", *small, *overrides]))

    return make


@pytest.fixture(scope="module")
def url(ray_cluster: str, plan: Callable[..., ServePlan]) -> Iterator[str]:
    from raystack.serving.deploy import deploy, undeploy

    yield deploy(plan("one")).links["url"]
    undeploy("summing")


async def in_thread(function: Callable[..., object], *arguments: object) -> None:
    await asyncio.to_thread(function, *arguments)


def status() -> tuple[str, str]:
    from ray import serve

    application = serve.status().applications["summing"]
    return application.status.value, application.deployments["model"].status.value


def test_a_new_version_takes_the_place_of_the_old_in_the_same_replica(
    url: str, plan: Callable[..., ServePlan]
) -> None:
    from raystack.serving.deploy import deploy

    async def run() -> Load:
        async with load(url) as running:
            await in_thread(deploy, plan("two"))
            await in_thread(deploy, plan("one", "serving.max_queued=500"))
        return running

    running = asyncio.run(run())
    assert set(running.seen) == {"version 1", "version 2"}
    assert len(running.processes) == 1


def test_a_version_that_cannot_be_loaded_changes_nothing(url: str, plan: Callable[..., ServePlan]) -> None:
    from raystack.serving.deploy import deploy

    async def run() -> Load:
        async with load(url) as running:
            with pytest.raises(ServingError, match="no such layer") as refused:
                await in_thread(deploy, plan("broken"))
            assert refused.value.exit_code == 6
        return running

    running = asyncio.run(run())
    assert set(running.seen) == {"version 1"}
    assert status() == ("RUNNING", "HEALTHY")


def test_one_to_three_to_one_replicas(url: str, plan: Callable[..., ServePlan]) -> None:
    from raystack.serving.deploy import deploy

    async def run() -> Load:
        async with load(url) as running:
            await in_thread(deploy, plan("one", "serving.replicas=3"))
            await asyncio.sleep(2)
            await in_thread(deploy, plan("one"))
            await asyncio.sleep(2)
        return running

    running = asyncio.run(run())
    assert set(running.seen) == {"version 1"}
    assert len(running.processes) == 3


def test_what_a_replica_is_started_with_changes_without_a_gap(
    url: str, plan: Callable[..., ServePlan]
) -> None:
    from raystack.serving.deploy import deploy

    async def run() -> Load:
        async with load(url) as running:
            await in_thread(deploy, plan("one", "serving.cpus_per_replica=0.3"))
        return running

    running = asyncio.run(run())
    assert set(running.seen) == {"version 1"}
    assert len(running.processes) == 2


def test_requests_of_a_replica_that_is_killed_wait_for_the_next(
    url: str, plan: Callable[..., ServePlan]
) -> None:
    async def run() -> Load:
        async with load(url) as running:
            (killed,) = running.processes
            os.kill(killed, signal.SIGKILL)
            async with asyncio.timeout(120):
                while len(running.processes) < 2:
                    await asyncio.sleep(0.1)
        return running

    running = asyncio.run(run())
    assert set(running.seen) == {"version 1"}
