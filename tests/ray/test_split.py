"""Versions of a model beside each other under load: shares, sticky keys, a shadow, and what is lost."""

import asyncio
import math
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from summing import BODY, Load, load, write

from raystack import config
from raystack.config.split import Shadow, Split, Sticky
from raystack.errors import ServingError
from raystack.plan import ServePlan, plan_serving
from raystack.serving.split.seen import Seen

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
    with socket.socket() as http, socket.socket() as grpc:
        for probe in (http, grpc):
            probe.bind(("127.0.0.1", 0))
        port, grpc_port = (int(probe.getsockname()[1]) for probe in (http, grpc))

    def make(
        model: str,
        *overrides: str,
        sticky: Sticky | None = None,
        shadow: Shadow | None = None,
        **shares: float,
    ) -> ServePlan:
        small = ["serving.cpus_per_replica=0.25", f"serving.name={NAME}", f"serving.port={port}"]
        small += ["resources.wait_s=120", f"serving.grpc_port={grpc_port}"]
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
    deviation = math.sqrt(total * share * (1 - share))
    return abs(count - total * share) <= 4 * deviation + 8  # those that were on their way at the change


def over_grpc(address: str, requests: int) -> Counter[str]:
    """Answers by version."""
    import tritonclient.grpc as triton

    x = triton.InferInput("x", [1, 2], "FP32")
    x.set_data_from_numpy(np.array([[1, 2]], np.float32))
    with triton.InferenceServerClient(address) as client:
        answers = [client.infer(NAME, [x], client_timeout=60) for _ in range(requests)]
    assert all(answer.as_numpy("sum").tolist() == [3.0] for answer in answers)
    return Counter(f"version {answer.get_response().model_version}" for answer in answers)


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
    rows = counters()
    assert rows["one"].requests == rows["one"].latency[-1] > 300
    assert rows["two"].requests > 600
    assert rows["one"].errors == rows["two"].errors == 0


async def answers(url: str, keys: range) -> dict[int, str]:
    """The version that answers each of some keys."""
    found = {}
    async with httpx.AsyncClient(timeout=60) as client:
        for key in keys:
            answer = await client.post(f"{url}/infer", json=BODY, headers={"X-User": f"user {key}"})
            found[key] = answer.json()["model_version"]
    return found


def test_the_same_key_has_the_same_version_and_none_goes_back(
    url: str, plan: Callable[..., ServePlan]
) -> None:
    from raystack.serving.split import steer

    sticky, keys = Sticky(header="x-user"), range(60)
    steer.take_over(plan("one"), NAME)
    steer.add(plan("one", two=0.0, sticky=sticky), NAME)
    before: set[int] = set()
    for share in (0.3, 0.3, 0.7, 1.0):
        steer.steer(plan("one", two=share, sticky=sticky), NAME)
        found = {key for key, version in asyncio.run(answers(url, keys)).items() if version == "2"}
        assert before <= found
        before = found
    assert before == set(keys)


def counters() -> dict[str, Seen]:
    from raystack.serving.split import steer

    return {Path(row.version).name: row for row in steer.seen(NAME)}


def test_a_shadow_is_compared_and_no_client_sees_it(url: str, plan: Callable[..., ServePlan]) -> None:
    from raystack.serving.split import steer

    shadowed = plan("one", shadow=Shadow(model=plan("two").model, max_ongoing=2))

    async def run() -> Load:
        async with load(url) as running:
            await shared(running, 200)
        return running

    steer.add(shadowed, NAME)
    steer.steer(shadowed, NAME)
    before = counters()["two"]
    running = asyncio.run(run())
    assert set(running.seen) == {"version 1"}
    time.sleep(0.5)
    now = counters()["two"]
    # Its process is another one, which is one of the outputs.
    assert now.different - before.different == now.compared - before.compared > 50
    assert set(now.largest) == {"process"}
    assert now.requests == before.requests
    copies = (now.compared + now.dropped) - (before.compared + before.dropped)
    assert copies == running.seen.total()


async def process(url: str, version: str) -> int | None:
    """The process that answers for a version; None if none does."""
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(f"{url}/versions/{version}/infer", json=BODY)
    if answer.status_code == 503:
        return None
    outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    return int(outputs["process"][0])


def test_a_version_beside_the_model_that_is_killed_loses_no_request(
    url: str, plan: Callable[..., ServePlan]
) -> None:
    from raystack.serving.split import steer

    async def run() -> Load:
        async with load(url) as running:
            await shared(running, 100)
            first = await process(url, "2")
            assert first is not None
            os.kill(first, signal.SIGKILL)
            await shared(running, 100)
            async with asyncio.timeout(60):
                while await process(url, "2") in (first, None):
                    await asyncio.sleep(0.2)
        return running

    steer.steer(plan("one", two=0.5), NAME)
    running = asyncio.run(run())
    assert set(running.seen) == {"version 1", "version 2"}


def test_the_split_outlives_the_controller_of_serve(url: str, plan: Callable[..., ServePlan]) -> None:
    import ray
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    async def run() -> Load:
        async with load(url) as running:
            ray.kill(ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE), no_restart=False)
            assert within(await shared(running, 300), 0.5)
            await asyncio.sleep(3)
            assert within(await shared(running, 300), 0.5)
        return running

    running = asyncio.run(run())
    assert set(running.seen) == {"version 1", "version 2"}


def test_a_server_is_deployed_with_a_split_and_without(url: str, plan: Callable[..., ServePlan]) -> None:
    from raystack.serving.deploy import deploy
    from raystack.serving.split import steer

    deploy(plan("one"))
    assert applications() == {NAME}
    with pytest.raises(ServingError, match="no such layer"):
        steer.add(plan("one", broken=0.1), NAME)
    split = plan("one", two=0.5)
    deploy(split)
    assert applications() == {NAME, *split.beside}
    found = asyncio.run(answers(url, range(40)))
    assert set(found.values()) == {"1", "2"}
    assert split.grpc_address is not None
    assert within(over_grpc(split.grpc_address, 100), 0.5)
    deploy(plan("one"))
    assert applications() == {NAME}


def awake(application: str) -> bool:
    from ray import serve

    from raystack.ray_internals.serve import has_replica

    return has_replica(serve.status().applications[application])


def test_a_version_without_a_replica_gets_one_and_all_requests_are_answered(
    url: str, plan: Callable[..., ServePlan]
) -> None:
    from raystack.serving.deploy import deploy
    from raystack.serving.split import steer

    scaled = {"min_replicas": 0, "max_replicas": 1, "upscale_delay_s": 0, "downscale_delay_s": 1}
    scaling = [f"+serving.autoscaling.{key}={value}" for key, value in scaled.items()]
    scaling += ["+serving.autoscaling.look_back_period_s=1"]

    async def run() -> Load:
        async with load(url) as running:
            (other,) = plan("one", *scaling, two=0.0).beside
            async with asyncio.timeout(60):
                while awake(other):
                    await asyncio.sleep(0.2)
            await done(steer.steer, plan("one", *scaling, two=1.0), NAME)
            before = running.seen["version 2"]
            async with asyncio.timeout(60):
                while running.seen["version 2"] < before + 50:
                    await asyncio.sleep(0.1)
        return running

    deploy(plan("one", *scaling, two=0.0))
    assert set(asyncio.run(run()).seen) == {"version 1", "version 2"}
    deploy(plan("one"))
