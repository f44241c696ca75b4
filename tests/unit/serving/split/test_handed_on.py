"""A version that has no replica, and replicas that do not tell: every wait has an end, and a reason."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import DeploymentUnavailableError

from raystack import config
from raystack.config.split import Split
from raystack.errors import ServingError
from raystack.plan import plan_serving
from raystack.serving.engine import LostError
from raystack.serving.split import remote, steer
from raystack.serving.split.remote import Described, RemoteEngine
from raystack.serving.split.seen import Counts
from raystack.serving.split.steer import AbsentError
from raystack.task import Signature, TensorSpec

TINY = Path(__file__).parents[3] / "tiny" / "config.yaml"
X = Signature((TensorSpec("x", "float32", (-1, 1)),), (TensorSpec("y", "float32", (-1, 1)),))


class Asleep:
    """A handle, and the response, of an application whose replica does not come."""

    cancelled = 0

    def options(self, **_: object) -> "Asleep":
        return self

    def remote(self, *_: object) -> "Asleep":
        return self

    def cancel(self) -> None:
        self.cancelled += 1

    async def _fetch_future_result_async(self) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("wakes", [True, False])
def test_a_replica_that_does_not_come_is_waited_for_within_a_bound(
    wakes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "AWAKE_S" if wakes else "ASSIGNED_S", 0.05)
    handle = Asleep()
    engine = RemoteEngine(handle, Described("2", X, 8, None), wakes=wakes)

    async def ask() -> None:
        async with asyncio.timeout(5):
            await engine.predict({}, 1)

    with pytest.raises(LostError, match=r"no replica takes the request within 0\.05 s"):
        asyncio.run(ask())
    assert handle.cancelled == 1


def test_where_the_model_is_not_served_nothing_is_started_and_no_version_has_a_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications={}))
    alone = plan_serving(config.load(TINY, ["serving.model=/old", "serving.name=m"]))
    split = replace(alone, serving=alone.serving.model_copy(update={"split": Split(models={"/new": 0.5})}))
    for act in (steer.add, steer.steer):
        with pytest.raises(AbsentError, match="model 'm' is not served"):
            act(split, "m")
    with pytest.raises(AbsentError):
        steer.take_over(alone, "m")
    with pytest.raises(AbsentError):
        steer.seen("m")
    steer.steer(alone, "m")
    steer.remove(alone, "m")


def replicas(monkeypatch: pytest.MonkeyPatch, results: Callable[..., Any]) -> None:
    """Replicas of a model `m` whose answers to a broadcast are as given."""
    response = SimpleNamespace(results=results)
    handle = SimpleNamespace(broadcast=lambda method: response)
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications={"m": None}))
    monkeypatch.setattr(serve, "get_app_handle", lambda name: handle)


def raises(error: Exception) -> Callable[..., Any]:
    def results(**_: object) -> Any:
        raise error

    return results


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        (raises(TimeoutError("Timed out waiting for broadcast results.")), "Timed out waiting"),
        (raises(ActorDiedError()), "The actor died"),
        (lambda **_: [TimeoutError(), ActorDiedError()], "TimeoutError"),
    ],
)
def test_replicas_that_do_not_tell_what_they_have_seen_are_an_error_with_a_reason(
    results: Callable[..., Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicas(monkeypatch, results)
    with pytest.raises(ServingError, match=rf"model 'm': none of its replicas tells .*: {reason}"):
        steer.seen("m")


def test_those_that_tell_are_enough_and_where_there_is_none_nothing_was_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = Counts().seen("one", "models:/m/1")
    replicas(monkeypatch, lambda **_: [ActorDiedError(), [row], TimeoutError()])
    assert steer.seen("m") == [row]
    replicas(monkeypatch, raises(DeploymentUnavailableError(SimpleNamespace(name="m"))))  # type: ignore[arg-type]
    assert steer.seen("m") == []
