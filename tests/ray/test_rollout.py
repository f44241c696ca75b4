"""A version that is rolled out under load on a real Ray Serve: a good one gets there, bad ones go back."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rolled import load, write

from raystack import Experiment
from raystack.plan import plan_serving
from raystack.rollout.actor import NAMESPACE, actor_name
from raystack.rollout.state import State

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

TINY = Path(__file__).parents[1] / "tiny" / "config.yaml"
STEPS = "[{weight: 0.2, min_requests: 30, min_s: 3}, {weight: 1.0, min_requests: 30, min_s: 2}]"
FAULTS = {"equal": {}, "failing": {"fails": 0.5}, "slow": {"slow_s": 0.1}, "wrong": {"wrong": 0.5}}
OVER_S = 60.0


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("rolled")
    made = {name: write(home / name, step, **faults) for step, (name, faults) in enumerate(FAULTS.items(), 2)}
    return {"stable": write(home / "stable", 1), **made}


Rolled = Callable[..., Experiment]


@pytest.fixture(scope="module")
def rolled(
    ray_cluster: str, versions: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rolled]:
    """What rolls out a version beside the one that is served."""
    from raystack.serving.deploy import deploy, undeploy

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    storage = tmp_path_factory.mktemp("rollouts")

    def experiment(version: str, *more: str) -> Experiment:
        own = [f"serving.model={versions['stable']}", "serving.name=rolled", f"serving.port={port}"]
        own += ["serving.cpus_per_replica=0.25", "resources.wait_s=240", f"target.address={ray_cluster}"]
        own += [f"experiment.storage={storage}", f"+rollout.model={versions[version]}"]
        return Experiment(TINY, *own, f"+rollout.steps={STEPS}", "+rollout.analysis.every_s=0.5", *more)

    deploy(plan_serving(experiment("equal").config))
    yield experiment
    undeploy("rolled")


def url(experiment: Experiment) -> str:
    return plan_serving(experiment.config).url


def ended(experiment: Experiment) -> State:
    handle, until = experiment.start_rollout(), time.monotonic() + OVER_S
    for state in handle.watch(0.25):
        assert time.monotonic() < until, state
    return state


@pytest.mark.parametrize(
    ("version", "cause"), [("failing", "errors"), ("slow", "latency"), ("wrong", "difference")]
)
def test_a_bad_version_goes_back_by_itself(version: str, cause: str, rolled: Rolled) -> None:
    experiment = rolled(version, "+rollout.analysis.difference.share=0.05")
    with load(url(experiment)) as seen:
        state = ended(experiment)
        before = seen["version 1"]
        time.sleep(1)
        assert seen["version 1"] > before
    assert state.status == "rolled back"
    assert state.cause.startswith(cause)
    assert state.reaction_s is not None
    # Clients meet the version's own errors alone.
    assert all(name.startswith("version") or "a bad version" in name or "id " in name for name in seen), seen


def test_a_good_version_takes_the_place_of_the_other_though_its_process_is_killed(rolled: Rolled) -> None:
    import ray

    experiment = rolled("equal")
    with load(url(experiment)) as seen:
        handle, until = experiment.start_rollout(), time.monotonic() + OVER_S
        for state in handle.watch(0.1):
            assert time.monotonic() < until, state
            if state.doing == "watch":
                break
        actor = ray.get_actor(actor_name("rolled"), namespace=NAMESPACE)
        process: Any = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()))
        os.kill(process, signal.SIGKILL)
        for state in handle.watch(0.25):
            assert time.monotonic() < until, state
        time.sleep(0.5)
    assert (state.status, set(seen)) == ("finished", {"version 1", "version 2"})
    assert [decision.what for decision in handle.decisions] == ["start", "step", "promote", "end"]
