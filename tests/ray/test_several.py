"""Several models on one server, with Ray: each answers for itself, and one changes without the others."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from summing import BODY, Load, load, write

from raystack import config
from raystack.config.split import Split
from raystack.errors import ServingError
from raystack.outcome import Outcome
from raystack.plan import ServePlan, plan_serving

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

TINY = Path(__file__).parents[1] / "tiny" / "config.yaml"
V1 = {"inputs": {"x": [[1, 2]]}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("several")
    steps = {"one": 1, "two": 2, "broken": 3}
    made = {name: write(home / name, step, broken=name == "broken") for name, step in steps.items()}
    return {**made, "slow": write(home / "slow", 1, takes_s=0.05)}


@pytest.fixture(scope="module")
def plan(folders: dict[str, str]) -> Callable[..., ServePlan]:
    """The plan of models by their names, each with the name of a folder and other keys."""
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(int(probe.getsockname()[1]))

    def make(shared: dict[str, Any] | None = None, **models: dict[str, Any]) -> ServePlan:
        overrides = [f"serving.port={ports[0]}", f"serving.grpc_port={ports[1]}", "resources.wait_s=240"]
        overrides += ["serving.cpus_per_replica=0.1"]
        for name, keys in models.items():
            own = {**keys, "model": folders[keys["model"]]}
            overrides += [f"serving.models.{name}.{key}={value}" for key, value in own.items()]
        overrides += [f"serving.multiplexed.{key}={value}" for key, value in (shared or {}).items()]
        return plan_serving(config.load(TINY, overrides))

    return make


BOTH: dict[str, dict[str, Any]] = {"first": {"model": "one"}, "second": {"model": "two"}}


@pytest.fixture(scope="module")
def served(ray_cluster: str, plan: Callable[..., ServePlan]) -> Iterator[Outcome]:
    from raystack.serving.deploy import deploy, undeploy

    yield deploy(plan(**BOTH))
    undeploy(*plan(**BOTH).applications)


@pytest.fixture(scope="module")
def base(served: Outcome) -> str:
    return served.links["url"].removesuffix("/v2")


def process(base: str, name: str) -> int:
    """The process that answers for a model."""
    answer = httpx.post(f"{base}/v2/models/{name}/infer", json=BODY, timeout=120)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["outputs"][1]["data"][0])


def test_each_model_answers_under_its_name(served: Outcome, base: str) -> None:
    urls = {name: served.links[f"model {name}"] for name in BOTH}
    for name, version in (("first", "1"), ("second", "2")):
        assert httpx.post(f"{urls[name]}/infer", json=BODY).json()["model_version"] == version
        assert httpx.get(urls[name]).json()["versions"] == [version]
        answer = httpx.post(f"{base}/v1/models/{name}:predict", json=V1).json()
        assert answer["outputs"]["sum"] == [3.0]
    assert httpx.get(f"{base}/v2/models").json() == {"models": ["first", "second"]}
    assert httpx.get(f"{base}/v2/health/ready").status_code == 200
    index = httpx.post(f"{base}/v2/repository/index", json={}).json()
    assert [(row["name"], row["version"], row["state"]) for row in index] == [
        ("first", "1", "READY"),
        ("second", "2", "READY"),
    ]
    unknown = httpx.post(f"{base}/v2/models/secondd/infer", json=BODY)
    assert unknown.status_code == 404
    assert "did you mean 'second'?" in unknown.json()["error"]


def test_each_model_answers_over_grpc(served: Outcome) -> None:
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(served.links["grpc"]) as client:
        assert client.is_server_ready()
        x = triton.InferInput("x", [1, 2], "FP32")
        x.set_data_from_numpy(np.array([[1, 2]], np.float32))
        for name, version in (("first", "1"), ("second", "2")):
            answer = client.infer(name, [x])
            assert answer.as_numpy("sum").tolist() == [3.0]
            assert answer.get_response().model_version == version
        with pytest.raises(triton.InferenceServerException, match="this server has 'first', 'second'"):
            client.infer("third", [x])


def test_a_model_comes_changes_and_goes_beside_the_others(base: str, plan: Callable[..., ServePlan]) -> None:
    from raystack.serving.deploy import deploy

    async def run() -> list[str]:
        async with load(f"{base}/v2/models/first", 2) as running:
            before = process(base, "second")
            third = {"third": {"model": "one"}}
            outcome = await asyncio.to_thread(deploy, plan(**BOTH, **third))
            assert set(outcome.links) >= {"model first", "model second", "model third"}
            changed = {**BOTH, "second": {"model": "one"}}
            await asyncio.to_thread(deploy, plan(**changed, **third))
            assert process(base, "second") == before
            wrong = {"second": {"model": "two"}, "third": {"model": "broken"}, "fourth": {"model": "two"}}
            with pytest.raises(ServingError, match="no such layer") as refused:
                await asyncio.to_thread(deploy, plan(first={"model": "one"}, **wrong))
            assert refused.value.exit_code == 6
            names = (await asyncio.to_thread(httpx.get, f"{base}/v2/models")).json()["models"]
            assert names == ["first", "second", "third"]
            assert process(base, "second") == before
            await asyncio.to_thread(deploy, plan(**BOTH))
        assert len(running.processes) == 1
        return list(running.seen)

    assert asyncio.run(run()) == ["version 1"]
    assert httpx.get(f"{base}/v2/models").json()["models"] == ["first", "second"]
    assert httpx.get(f"{base}/v2/models/third").status_code == 404


def test_from_zero_replicas_all_requests_are_answered(base: str, plan: Callable[..., ServePlan]) -> None:
    from raystack.serving.deploy import deploy

    keys = {"min_replicas": 0, "max_replicas": 3, "target_ongoing": 4, "upscale_delay_s": 0}
    keys |= {"downscale_delay_s": 1, "look_back_period_s": 2}
    scaled = {f"autoscaling.{key}": value for key, value in keys.items()}
    deploy(plan(**BOTH, scaled={"model": "one", **scaled}))

    async def run() -> list[int]:
        async with httpx.AsyncClient(base_url=base, timeout=120) as client:
            async with asyncio.timeout(90):
                while "no replica" not in (await client.post("/v2/repository/index", json={})).text:
                    await asyncio.sleep(0.5)
            assert (await client.get("/v2/health/ready")).status_code == 200
            asked = [client.post("/v2/models/scaled/infer", json=BODY) for _ in range(200)]
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    assert asyncio.run(run()) == [200] * 200
    deploy(plan(**BOTH))


def test_models_that_share_replicas_are_loaded_as_they_are_asked_for(
    base: str, plan: Callable[..., ServePlan], folders: dict[str, str]
) -> None:
    from raystack.serving.deploy import deploy

    shared = {f"models.{name}.model": folders[name] for name in ("one", "two", "slow", "broken")}
    both = plan(**BOTH, shared={"max_loaded": 2, "cpus_per_replica": 0.1, **shared})
    outcome = deploy(both)
    assert outcome.links["model one"] == f"{base}/v2/models/one"

    def loaded() -> set[str]:
        index = httpx.post(f"{base}/v2/repository/index", json={"ready": True}).json()
        return {row["name"] for row in index}

    assert loaded() == {"first", "second"}
    for name, version in (("one", "1"), ("two", "2"), ("slow", "1"), ("two", "2")):
        answer = httpx.post(f"{base}/v2/models/{name}/infer", json=BODY, timeout=60)
        assert answer.json()["model_version"] == version
    assert loaded() == {"first", "second", "slow", "two"}
    assert "no such layer" in httpx.post(f"{base}/v2/models/broken/infer", json=BODY, timeout=60).text
    assert process(base, "first") != process(base, "one") == process(base, "two")
    assert httpx.post(f"{base}/v2/repository/models/one/unload").status_code == 200
    assert "one" not in loaded()
    deploy(plan(**BOTH))
    assert httpx.get(f"{base}/v2/models").json() == {"models": ["first", "second"]}


@pytest.mark.long
def test_replicas_follow_the_load_without_a_request_that_fails(
    base: str, plan: Callable[..., ServePlan]
) -> None:
    """One, three, and one again."""
    from raystack.serving.deploy import deploy

    keys = {"max_replicas": 3, "target_ongoing": 2, "upscale_delay_s": 2, "downscale_delay_s": 5}
    scaled = {f"autoscaling.{key}": value for key, value in keys.items()}
    deploy(plan(**BOTH, scaled={"model": "slow", **scaled}))

    async def run() -> Load:
        url = f"{base}/v2/models/scaled"
        async with load(url, 1) as running:
            await asyncio.sleep(8)
            assert replicas_of("scaled") == 1, "one connection is no load"
            async with load(url, 8) as more, asyncio.timeout(90):
                while replicas_of("scaled") < 3:
                    await asyncio.sleep(0.2)
                await asyncio.sleep(3)
            assert set(more.seen) == {"version 1"}
            assert len(more.processes) == 3
            async with asyncio.timeout(90):
                while replicas_of("scaled") > 1:
                    await asyncio.sleep(0.2)
            await asyncio.sleep(3)
        return running

    assert set(asyncio.run(run()).seen) == {"version 1"}
    deploy(plan(**BOTH))


@pytest.mark.long
def test_a_model_without_a_replica_is_changed_by_one_that_can_load_it(
    base: str, plan: Callable[..., ServePlan]
) -> None:
    from raystack.serving.deploy import deploy

    keys = {"min_replicas": 0, "max_replicas": 1, "downscale_delay_s": 1, "look_back_period_s": 2}
    scaled = {f"autoscaling.{key}": value for key, value in keys.items()}

    def asleep() -> None:
        deadline = time.monotonic() + 90
        while replicas_of("scaled"):
            assert time.monotonic() < deadline
            time.sleep(0.2)

    deploy(plan(**BOTH, scaled={"model": "one", **scaled}))
    asleep()
    with pytest.raises(ServingError, match="no such layer"):
        deploy(plan(**BOTH, scaled={"model": "broken", **scaled}))
    asleep()
    deploy(plan(first={"model": "two"}, second={"model": "two"}, scaled={"model": "one", **scaled}))
    assert replicas_of("scaled") == 0, "a change of others does not start it"
    deploy(plan(**BOTH, scaled={"model": "two", **scaled}))
    answer = httpx.post(f"{base}/v2/models/scaled/infer", json=BODY, timeout=120)
    assert answer.json()["model_version"] == "2"
    deploy(plan(**BOTH))


def test_one_of_them_has_versions_beside_it(
    base: str, plan: Callable[..., ServePlan], folders: dict[str, str]
) -> None:
    from ray import serve

    from raystack.serving.deploy import deploy
    from raystack.serving.split import steer

    def split(share: float) -> ServePlan:
        made = plan(**BOTH)
        first = made.serving.models["first"].model_copy(
            update={"split": Split(models={folders["two"]: share})}
        )
        models = {**made.serving.models, "first": first}
        return replace(made, serving=made.serving.model_copy(update={"models": models}))

    def versions(name: str) -> set[str]:
        answers = [httpx.post(f"{base}/v2/models/{name}/infer", json=BODY, timeout=120) for _ in range(30)]
        return {str(answer.json()["model_version"]) for answer in answers}

    deploy(split(0.5))
    assert set(serve.status().applications) == set(split(0.5).applications)
    assert (versions("first"), versions("second")) == ({"1", "2"}, {"2"})
    steer.steer(split(1.0), "first")
    assert versions("first") == {"2"}
    alone = plan(first={"model": "two"}, second={"model": "two"})
    steer.take_over(alone, "first")
    steer.remove(alone, "first")
    assert versions("first") == {"2"}
    assert httpx.get(f"{base}/v2/models/first").json()["versions"] == ["2"]
    assert set(serve.status().applications) == set(alone.applications)
    deploy(plan(**BOTH))


def replicas_of(name: str) -> int:
    from ray import serve

    return serve.status().applications[name].deployments["model"].replica_states.get("RUNNING", 0)  # type: ignore[call-overload,no-any-return]
