"""The gates before a rollout: the version is compared with the one that is served, also without an alias."""

from pathlib import Path

import pytest

from raystack import config
from raystack.checkpoint.evaluation import EvaluatedSet, write_evaluation
from raystack.checkpoint.model import ModelSpec, write_spec
from raystack.errors import PlanError
from raystack.plan.rollout import RolloutPlan, plan_rollout
from raystack.registry import gates
from raystack.registry.audit import Audit
from raystack.registry.gates import Check, GateReport
from raystack.rollout import start as starting
from raystack.task import Signature

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"


def model(folder: Path, error: float) -> str:
    folder.mkdir()
    write_spec(folder, ModelSpec("task:Tiny", {}, Signature((), ()), "run", 1, {}), None)
    write_evaluation(folder, {"eval/": EvaluatedSet("same", 6, ({"error": error},) * 6)})
    return str(folder)


def plan(storage: Path, old: str, new: str) -> RolloutPlan:
    named = [f"serving.model={old}", "target.address=127.0.0.1:6379", f"experiment.storage={storage}"]
    asked = "registry.gates={champion: {metric: eval/error, mode: min}}"
    return plan_rollout(config.load(TINY, [*named, "tracking=local", asked, f"+rollout.model={new}"]))


def test_a_version_that_is_worse_than_what_is_served_is_refused(tmp_path: Path) -> None:
    good, bad = model(tmp_path / "good", 0.1), model(tmp_path / "bad", 0.5)
    assert starting._passed(plan(tmp_path, bad, good))["champion"]["against"] == bad
    with pytest.raises(PlanError, match=r"^registry.gates.champion: eval/error is 0.5, and 0.1 of /"):
        starting._passed(plan(tmp_path, good, bad))


def test_a_refusal_without_an_alias_is_in_the_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Check("size_mb", False, 3.0, "max 1", "3, and asked is max 1")
    monkeypatch.setattr(gates, "check", lambda *_, **__: GateReport("models:/m/2", (found,)))
    with pytest.raises(PlanError, match=r"registry.gates.size_mb: 3, and asked is max 1"):
        starting._passed(plan(tmp_path, "models:/m/1", "models:/m/2"))
    (move,) = Audit(str(tmp_path), "m").moves()
    assert (move.what, move.alias, move.version, move.measured) == ("refused", None, "2", {"size_mb": 3.0})
