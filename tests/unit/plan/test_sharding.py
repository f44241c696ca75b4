"""Hybrid sharding in a plan: groups that divide each number of workers, and the memory of their share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from raystack.config import load
from raystack.errors import ConfigError, PlanError
from raystack.plan import TrainPlan, plan_training
from raystack.plan.describe import rows
from raystack.plan.footprint import Estimate, ModelProfile, Pass

PSI = 1_000_000_000
CONFIG = """\
experiment: {name: demo, storage: /data}
task: {entry: "task:Demo"}
training: {steps: 10, batch: {global: 64, micro: 1}, strategy: {kind: fsdp}}
resources: {workers: 16, gpus_per_worker: 1, accelerator_type: A100}
tracking: {kind: "off"}
"""
Plan = Callable[..., TrainPlan]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "config.yaml").write_text(CONFIG)
    passes = (Pass(1, PSI, PSI, 5 * PSI), Pass(64, 64 * PSI, 64 * PSI, 68 * PSI))
    measured = ModelProfile(PSI, 0, 4 * PSI, 0, 0, (), PSI // 100, passes, passes, "fake")
    return lambda *overrides: plan_training(load(tmp_path / "config.yaml", overrides), "demo-1", measured)


def fsdp(plan: TrainPlan) -> Estimate:
    assert plan.memory is not None
    return next(estimate for estimate in plan.memory.estimates if estimate.strategy == "fsdp")


def test_a_worker_holds_its_share_of_a_group(plan: Plan) -> None:
    everyone, group = (fsdp(plan(*overrides)) for overrides in ([], ["training.strategy.shard=4"]))
    for line in ("weights", "optimizer state"):
        assert group.device[line] == 4 * everyone.device[line]
    assert group.device["optimizer state"] == 8 * PSI // 4
    assert group.device["gathered weights"] == everyone.device["gathered weights"]
    assert "groups of 4" in dict(rows(plan("training.strategy.shard=4")))["strategy"]


@pytest.mark.parametrize(
    ("shard", "workers", "batch", "words"),
    [
        (3, "16", 64, r"which is 16 \(got 3\); nearest: training.strategy.shard=[24]"),
        (32, "16", 64, r"which is 16 \(got 32\); nearest: training.strategy.shard=8"),
        (2, "inline", 64, r"which is 1 \(got 2\); leave it out"),
        (2, "[2,4]", 12, r"which is 2 or 3 or 4 \(got 2\); leave it out"),
    ],
)
def test_groups_divide_every_possible_number_of_workers(
    plan: Plan, shard: int, workers: str, batch: int, words: str
) -> None:
    place = ["~resources.accelerator_type", "resources.gpus_per_worker=0", f"resources.workers={workers}"]
    batches = f"training.batch={{global: {batch}, micro: 1}}"
    with pytest.raises(PlanError, match=rf"training.strategy.shard: .*{words}"):
        plan(f"training.strategy.shard={shard}", *place, batches)


def test_a_second_copy_of_zeros_weights_is_in_deepspeeds_json_and_in_the_memory(plan: Plan) -> None:
    zero = ["strategy=zero3", "training.precision=bf16"]
    alone, second = plan(*zero), plan(*zero, "training.strategy.secondary_shard=4")
    assert second.deepspeed is not None
    assert second.deepspeed["zero_optimization"]["zero_hpz_partition_size"] == 4
    assert alone.memory is not None
    assert second.memory is not None
    more = second.memory.estimate.device["weights"] - alone.memory.estimate.device["weights"]
    assert more == 2 * PSI // 4
    with pytest.raises(PlanError, match=r"secondary_shard: .* which is 16 \(got 3\); nearest: .*shard=[24]"):
        plan(*zero, "training.strategy.secondary_shard=3")
    with pytest.raises(ConfigError, match="secondary_shard needs stage 3"):
        plan("strategy=zero2", "training.strategy.secondary_shard=4")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("mics_shard_size", "DeepSpeed has removed MiCS; use strategy=fsdp with training.strategy.shard"),
        ("zero_hpz_partition_size", "set training.strategy.secondary_shard"),
    ],
)
def test_deepspeeds_own_keys_lead_to_those_of_the_config(plan: Plan, key: str, words: str) -> None:
    with pytest.raises(PlanError, match=rf"training.strategy.extra.zero_optimization.{key}: .*{words}"):
        plan("strategy=zero3", f"training.strategy.extra={{zero_optimization: {{{key}: 4}}}}")


def test_an_elastic_run_counts_only_the_numbers_that_divide_its_batch(plan: Plan) -> None:
    made = plan("training.strategy.shard=2", "resources.workers=[2,4]", "training.batch={global: 16}")
    assert [batch.workers for batch in made.batches] == [4, 2]
