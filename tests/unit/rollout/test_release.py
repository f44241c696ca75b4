"""A version from the gates to its rollout, and an alias to one: what is begun, taken up, or sent back."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raystack import config
from raystack.config.automation import Automation
from raystack.plan.automation import plan_automation
from raystack.plan.follow import FollowPlan, plan_follow
from raystack.plan.rollout import RolloutPlan
from raystack.registry.audit import Audit
from raystack.registry.gates.report import Check, GateReport
from raystack.rollout import start as starting
from raystack.rollout.automation import release as releasing
from raystack.rollout.automation.release import Release
from raystack.rollout.automation.rounds import Round, Trigger
from raystack.rollout.follow import begin as beginning
from raystack.rollout.handle import RolloutHandle
from raystack.rollout.state import Decision, State, Status
from raystack.rollout.store import RolloutStore, make_current

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"


class Rollouts:
    """The start of rollouts, without a cluster."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.folder = ""

    def start(self, plan: RolloutPlan, *, supersede: bool = False, verbose: bool = False) -> RolloutHandle:
        assert supersede
        self.started.append(plan.candidate)
        identity, self.folder = f"r{len(self.started)}", plan.folder
        state = State(identity, plan.name, "models:/tiny/1", plan.candidate, began=time.time())
        store = RolloutStore(f"{plan.folder}/{identity}")
        store.create(plan.config, state, Decision(time.time(), "start", "a test"))
        make_current(plan.folder, identity)
        return RolloutHandle(identity, store.folder)

    def becomes(self, identity: str, status: Status, cause: str) -> None:
        store = RolloutStore(f"{self.folder}/{identity}")
        store.decide(replace(store.state(), status=status, cause=cause), Decision(time.time(), "end", cause))


@pytest.fixture
def rollouts(monkeypatch: pytest.MonkeyPatch) -> Rollouts:
    rollouts = Rollouts()
    for module in (starting, releasing, beginning):
        monkeypatch.setattr(module, "start", rollouts.start, raising=False)
    return rollouts


def configured(storage: Path, **sections: Any) -> config.RunConfig:
    named = [f"experiment.storage={storage}", "tracking=local", "registry.model=tiny"]
    named += ["registry.alias=champion"]
    served = ["serving.model=models:/tiny@champion", "target.address=127.0.0.1:6379"]
    base = config.load(TINY, [*named, *served, "+rollout.follow.poll_s=1"])
    return base.model_copy(update=sections)


def round_of(version: str, rollout: str | None = None) -> Round:
    trigger, began = Trigger("drift", 0.0, "x"), time.time() - 1
    return Round("0001", trigger, "releasing", began, "run", version=version, rollout=rollout)


def release(storage: Path) -> Release:
    automation = Automation.model_validate({"triggers": {"schedule": "@daily"}}, strict=False)
    return Release(plan_automation(configured(storage, automation=automation)))


def test_a_version_is_rolled_out_once_and_its_end_is_the_round_s(rollouts: Rollouts, tmp_path: Path) -> None:
    first = release(tmp_path)
    assert first.begin(round_of("models:/tiny/2")) == "r1"
    assert release(tmp_path).begin(round_of("models:/tiny/2")) == "r1", "a process that was killed began it"
    assert rollouts.started == ["models:/tiny/2"]
    begun = round_of("models:/tiny/2", "r1")
    assert first.ended(begun) is None
    first.abort(begun, "the stop file is there")
    (order,) = RolloutStore(f"{rollouts.folder}/r1").orders("")
    assert (order.verb, order.why) == ("abort", "the stop file is there")
    rollouts.becomes("r1", "rolled back", "errors: 0.3 of the requests")
    verdict = first.ended(begun)
    assert verdict is not None
    assert (verdict.good, verdict.why) == (False, "rolled back: errors: 0.3 of the requests")
    assert first.begin(round_of("models:/tiny/3")) == "r2"
    rollouts.becomes("r2", "finished", "it answers all requests")
    verdict = first.ended(round_of("models:/tiny/3", "r2"))
    assert verdict is not None
    assert verdict.good


def test_a_refusal_is_in_the_audit_of_the_registry(
    rollouts: Rollouts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Check("size_mb", False, 3.0, "max 1", "3, and asked is max 1")
    monkeypatch.setattr(releasing, "check", lambda *_, **__: GateReport("models:/tiny/2", (found,)))
    verdict = release(tmp_path).check(round_of("models:/tiny/2"))
    assert (verdict.good, verdict.why) == (False, "size_mb: 3, and asked is max 1")
    (move,) = Audit(str(tmp_path), "tiny").moves("champion")
    assert (move.what, move.version, move.measured) == ("refused", "2", {"size_mb": 3.0})


def test_an_alias_that_moves_again_supersedes_and_one_that_moves_back_aborts(
    rollouts: Rollouts, tmp_path: Path
) -> None:
    plan: FollowPlan = plan_follow(configured(tmp_path))
    assert (plan.uri, plan.steps) == ("models:/tiny@champion", True)
    assert beginning.begin(plan, "models:/tiny/2", verbose=False) == "rollout r1 has begun"
    assert beginning.begin(plan, "models:/tiny/2", verbose=False) == "rollout r1 is on its way"
    superseding = "rollout r2 has begun, and supersedes r1 of models:/tiny/2"
    assert beginning.begin(plan, "models:/tiny/3", verbose=False) == superseding
    said = beginning.begin(plan, "models:/tiny/1", verbose=False)
    assert said == "it is served, and rollout r2 of models:/tiny/3 goes back"
    (order,) = RolloutStore(f"{rollouts.folder}/r2").orders("")
    assert order.verb == "abort"
    assert rollouts.started == ["models:/tiny/2", "models:/tiny/3"]
