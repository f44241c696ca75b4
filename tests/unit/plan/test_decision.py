"""What was decided travels: a driver elsewhere does what --dry-run has shown, or says that it cannot."""

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from raystack import __version__
from raystack.code.bundle import bundle, sent_with
from raystack.config import RunConfig, load
from raystack.errors import PlanError
from raystack.experiment import Experiment
from raystack.launch import remote
from raystack.plan import TrainPlan, plan_training, plan_tuning
from raystack.plan.batch import Batch
from raystack.plan.decision import as_sent, check, sent_config
from raystack.plan.footprint import ModelProfile, Pass
from raystack.training.profile import profile_subprocess

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"
KUBERAY = Path(__file__).parents[3] / "kuberay" / "config.yaml"
JOB = ("target=job", "target.address=http://there:8265", "experiment.storage=/data")
AUTO = (*JOB, "training.batch.micro=auto", "resources.workers=[1,4]", "resources.device_memory_gib=1")


PASSES = tuple(Pass(micro, micro << 26, micro << 26, micro << 26) for micro in (1, 32))
PROFILE = ModelProfile(49, 0, 196, 0, 0, (49,), 32, PASSES, PASSES, "fake")
"""Of a model whose activations take 64 MiB a sample."""


def decided(profile: ModelProfile | None, *overrides: str) -> TrainPlan:
    return plan_training(load(TINY, overrides), "tiny-20260101-000000-aaaa", profile)


def arrived(plan: TrainPlan, folder: Path) -> RunConfig:
    """The config as the driver there loads it."""
    bundle(plan.config, plan).write(folder)
    return load(folder / "config.yaml")


def test_an_automatic_micro_batch_is_found_once_and_sent(tmp_path: Path) -> None:
    plan = decided(PROFILE, *AUTO)
    there = arrived(plan, tmp_path)
    assert plan.config.training.batch.micro == "auto"
    assert isinstance(there.training.batch.micro, int)
    again = plan_training(there, "tiny-20260101-000000-aaaa")
    assert again.batches == plan.batches
    assert [(batch.workers, batch.micro) for batch in plan.batches] == [(4, 4), (2, 4), (1, 4)]
    sent = sent_with(tmp_path / "config.yaml")
    assert sent is not None
    check(again, sent)


def test_a_driver_of_a_study_decides_as_it_was_submitted(tmp_path: Path) -> None:
    space = "tuning={metric: eval/mse, trials: 7, space: {training.optimizer.lr: {uniform: [0.1, 1.0]}}}"
    plan = plan_tuning(load(TINY, [*JOB, space]), "tiny-20260101-000000-aaaa")
    bundle(plan.config, plan).write(tmp_path)
    again = plan_tuning(load(tmp_path / "config.yaml"), "tiny-20260101-000000-bbbb")
    sent = sent_with(tmp_path / "config.yaml")
    assert sent is not None
    check(again, sent)
    with pytest.raises(PlanError, match=r"trials 8, sent 7"):
        check(replace(again, trials=8), sent)


@pytest.mark.parametrize("micro", [1, 2, 4, 8, 16, 32])
def test_each_number_of_workers_gets_the_batch_that_was_decided_for_it(micro: int) -> None:
    elastic = ("resources.workers=[2,6]", "training.batch.global=48")
    plan = decided(None, *elastic, f"training.batch.micro={micro}")
    config = plan.config.training.batch.model_copy(update={"micro": "auto"})
    training = plan.training.model_copy(update={"batch": config})
    auto = replace(plan, training=training, config=plan.config.model_copy(update={"training": training}))
    assert plan_training(sent_config(auto), plan.run_id).batches == plan.batches


def test_a_driver_that_decides_otherwise_ends_with_one_line() -> None:
    plan = decided(None, "resources.workers=2")
    sent = as_sent(plan)
    check(plan, sent)
    other = replace(plan, batches=(Batch(32, 8, 2, 2),), eval_batch=8)
    with pytest.raises(PlanError) as raised:
        check(other, sent)
    (line,) = str(raised.value).splitlines()
    assert line == (
        f"plan.json: this driver (raystack {__version__}) decides otherwise than raystack {__version__},"
        ' which submitted the run (got batches [{"global_":32,"micro":8,"accumulation":2,"workers":2}], sent'
        ' [{"global_":32,"micro":16,"accumulation":1,"workers":2}]; eval_batch 8, sent 16); have the same'
        " raystack in both places"
    )


def test_the_driver_reads_what_was_sent_with_its_config(tmp_path: Path) -> None:
    plan = decided(None, *JOB, "resources.workers=2")
    arrived(plan, tmp_path)
    Experiment(tmp_path / "config.yaml").plan()
    values = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps({**values, "eval_batch": 3}))
    with pytest.raises(PlanError, match=r"eval_batch 16, sent 3"):
        Experiment(tmp_path / "config.yaml").plan()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"batches": 3}', "no JSON"])
def test_a_file_of_that_name_that_is_the_users_own_decides_nothing(text: str, tmp_path: Path) -> None:
    arrived(decided(None, *JOB), tmp_path)
    (tmp_path / "plan.json").write_text(text)
    Experiment(tmp_path / "config.yaml").plan()


def test_the_driver_measures_nothing_again(tmp_path: Path) -> None:
    arrived(decided(PROFILE, *AUTO), tmp_path)
    with patch.object(profile_subprocess, "measure", side_effect=AssertionError):
        Experiment(tmp_path / "config.yaml").plan()


@pytest.mark.parametrize("schedule", [None, "0 3 * * *"])
def test_a_job_on_kubernetes_carries_its_decision_and_a_schedule_plans_by_itself(
    schedule: str | None,
) -> None:
    config = load(KUBERAY, [f"target.cron.schedule='{schedule}'"] if schedule else [])
    plan = plan_training(config, "digits-20260101-000000-aaaa")
    prepared = remote._prepared(plan, ())
    assert prepared is not None
    assert ("plan.json" in prepared.bundle.files) == (schedule is None)
    if schedule is None:
        check(plan, prepared.bundle.files["plan.json"].decode())
