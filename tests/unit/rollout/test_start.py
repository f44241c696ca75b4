"""The start of a rollout that takes the place of another one."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raystack import config, ray_internals
from raystack.errors import ConfigError
from raystack.plan.rollout import RolloutPlan, plan_rollout
from raystack.rollout import start as starting
from raystack.rollout.handle import RolloutHandle

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is served; a rollout of version 2 that is past going back, and the beginning of another one."""
    served, begun = {"model": "models:/m/1"}, RolloutHandle("r1", "")

    def end_other(plan: RolloutPlan, *, supersede: bool) -> None:
        served["model"] = "models:/m/2"

    def begin(plan: RolloutPlan, measured: Mapping[str, Any]) -> RolloutHandle:
        served["stable"] = plan.stable
        return begun

    serve = SimpleNamespace(user_config=lambda *_: {"model": served["model"]})
    monkeypatch.setattr(ray_internals, "serve", serve, raising=False)
    monkeypatch.setattr(starting, "_cluster", lambda *_, **__: nullcontext())
    monkeypatch.setattr(starting, "_pinned", lambda model, _: model)
    monkeypatch.setattr(starting, "_end_other", end_other)
    monkeypatch.setattr(starting, "_begin", begin)
    return served


def rollout(tmp_path: Path, version: str) -> RolloutPlan:
    named = ["serving.model=models:/m/1", "target.address=127.0.0.1:6379", "tracking=local"]
    return plan_rollout(
        config.load(TINY, [*named, f"experiment.storage={tmp_path}", f"+rollout.model={version}"])
    )


def test_it_is_beside_what_is_served_after_the_other_s_end(tmp_path: Path, served: dict[str, str]) -> None:
    starting.start(rollout(tmp_path, "models:/m/3"), supersede=True)
    assert served["stable"] == "models:/m/2"


def test_a_version_that_is_served_after_the_other_s_end_is_refused(
    tmp_path: Path, served: dict[str, str]
) -> None:
    with pytest.raises(ConfigError, match="models:/m/2 is served already"):
        starting.start(rollout(tmp_path, "models:/m/2"), supersede=True)
