"""What the memory plan promises: the published formulas, the chosen strategy beside the others, and the
largest batch that fits.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from raystack.config import load
from raystack.config.run import RunConfig
from raystack.errors import PlanError
from raystack.plan import TrainPlan, plan_training
from raystack.plan.describe import as_json, rows
from raystack.plan.footprint import CONTEXT, GIB, MIB, NCCL, Estimate, ModelProfile, Pass, at
from raystack.plan.memory import micro_batches_to_profile
from raystack.plan.scale import plan_workers

PSI = 1_000_000_000
CONFIG = """\
experiment: {name: demo, storage: /data}
task: {entry: "task:Demo"}
training: {steps: 10, batch: {global: 64, micro: 1}, strategy: {kind: ddp}}
resources: {workers: 64, gpus_per_worker: 1, accelerator_type: A100}
tracking: {kind: "off"}
"""


def measured(psi: int = PSI, units: tuple[int, ...] = (), per_sample: int = GIB) -> ModelProfile:
    """A model of `psi` float32 parameters whose passes grow by `per_sample` bytes."""
    passes = tuple(
        Pass(micro, micro * per_sample, micro * per_sample, micro * per_sample + 4 * psi) for micro in (1, 64)
    )
    return ModelProfile(psi, 0, 4 * psi, 0, 0, units, psi // 100, passes, passes, "fake")


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., RunConfig]:
    (tmp_path / "config.yaml").write_text(CONFIG)
    return lambda *overrides: load(tmp_path / "config.yaml", overrides)


@pytest.fixture
def plan(config: Callable[..., RunConfig]) -> Callable[..., TrainPlan]:
    return lambda *overrides, model=None: plan_training(config(*overrides), "demo-1", model or measured())


def by_name(plan: TrainPlan) -> dict[str, Estimate]:
    assert plan.memory is not None
    return {estimate.strategy: estimate for estimate in plan.memory.estimates}


def state(estimate: Estimate) -> float:
    """Weights, gradients and optimizer state in bytes per parameter."""
    return sum(estimate.device[line] for line in ("weights", "gradients", "optimizer state")) / PSI


def test_the_table_of_the_zero_paper_comes_out(plan: Callable[..., TrainPlan]) -> None:
    """Rajbhandari et al. 2020, table 1: 16 psi bytes without ZeRO, and what 64 workers leave of them. Their
    gradients are fp16 throughout; DeepSpeed accumulates them in float32, 4 psi for their 2, and with stage 1
    keeps both.
    """
    found = by_name(plan("strategy=zero1", "training.precision=bf16"))
    assert state(found["zero1"]) == pytest.approx(2 + 6 + 12 / 64)
    assert state(found["zero2"]) == pytest.approx(2 + (4 + 12) / 64)
    assert state(found["zero3"]) == pytest.approx((2 + 4 + 12) / 64)
    assert state(found["ddp"]) == 16
    assert state(found["fsdp"]) == pytest.approx(16 / 64)


def test_sgd_without_momentum_keeps_no_state(plan: Callable[..., TrainPlan]) -> None:
    assert by_name(plan("training.optimizer={kind: sgd}"))["ddp"].device["optimizer state"] == 0
    assert (
        by_name(plan("training.optimizer={kind: sgd, momentum: 0.9}"))["ddp"].device["optimizer state"]
        == 4 * PSI
    )


def test_one_worker_counts_only_the_gradients_that_are_there_at_the_peak(
    plan: Callable[..., TrainPlan],
) -> None:
    passes = tuple(Pass(micro, 7 * PSI, 8 * PSI, 9 * PSI) for micro in (1, 4))
    model = replace(measured(), passes=passes, low_passes=passes)
    alone = ("resources.workers=1", "training.batch.global=4")
    assert by_name(plan(*alone, "training.batch.micro=4", model=model))["ddp"].device["gradients"] == PSI
    accumulating = by_name(plan(*alone, "training.batch.micro=1", model=model))["ddp"]
    assert accumulating.device["gradients"] == 4 * PSI, (
        "the second micro batch finds the gradients of the first"
    )


def test_fsdp_gathers_the_root_and_two_units(plan: Callable[..., TrainPlan]) -> None:
    model = measured(units=(PSI // 10,) * 9)
    assert by_name(plan("strategy=fsdp", model=model))["fsdp"].device["gathered weights"] == 4 * (
        PSI // 10 + 2 * PSI // 10
    )
    whole = by_name(plan("strategy=fsdp", "training.strategy.wrap=whole", model=model))["fsdp"]
    assert whole.device["gathered weights"] == 4 * PSI
    kept = by_name(plan("strategy=fsdp", "training.strategy.reshard_after_forward=false", model=model))[
        "fsdp"
    ]
    assert kept.device["gathered weights"] == 4 * PSI
    accumulating = by_name(plan("strategy=fsdp", "training.batch.global=128", model=model))["fsdp"]
    assert accumulating.device["gradients"] == 4 * PSI / 64 + 4 * PSI, (
        "micro steps without a reduction keep whole gradients"
    )


def test_offloading_moves_lines_off_the_device(plan: Callable[..., TrainPlan]) -> None:
    fsdp = by_name(plan("strategy=fsdp", "training.strategy.offload=true"))["fsdp"]
    assert (state(fsdp), fsdp.host) == (0, 16 * PSI // 64)
    cpu = by_name(plan("strategy=zero2", "training.strategy.offload_optimizer={device: cpu}"))["zero2"]
    assert (cpu.device["optimizer state"], cpu.device["gradients"], cpu.host) == (0, 0, 16 * PSI // 64)
    nvme = "{device: nvme, path: /nvme}"
    both = (f"training.strategy.offload_optimizer={nvme}", f"training.strategy.offload_param={nvme}")
    disk = by_name(plan("strategy=zero3", "training.precision=bf16", *both))["zero3"]
    assert (state(disk), disk.disk) == (0, 18 * PSI // 64)


def test_a_device_has_overhead_and_fragments(plan: Callable[..., TrainPlan]) -> None:
    found = by_name(plan())["ddp"]
    moving = GIB + found.device["communication"]
    assert found.device["overhead"] == CONTEXT["cuda"] + NCCL + int(0.05 * moving)
    cpu = by_name(plan("~resources.accelerator_type", "resources.gpus_per_worker=0"))["ddp"]
    assert cpu.device["overhead"] == CONTEXT["cpu"]


@pytest.mark.parametrize(
    ("overrides", "fits"),
    [
        ((), True),
        (("resources.device_memory_gib=16",), False),
        (("resources.accelerator_type=L4",), True),
        (("resources.accelerator_type=T4",), False),
        (("resources.accelerator_type=Future1",), None),
    ],
)
def test_whether_it_fits_is_known_or_said_not_to_be(
    overrides: tuple[str, ...], fits: bool | None, plan: Callable[..., TrainPlan]
) -> None:
    made = plan(*overrides)
    assert made.memory is not None
    assert made.memory.fits is fits
    words = {True: "it fits", False: "it does not fit", None: "set resources.device_memory_gib"}[fits]
    assert words in dict(rows(made))["memory"]
    assert '"fits": ' + {True: "true", False: "false", None: "null"}[fits] in as_json(made)


def test_auto_takes_the_largest_micro_batch_that_fits(
    plan: Callable[..., TrainPlan], config: Callable[..., RunConfig]
) -> None:
    auto = ("resources.workers=4", "training.batch={global: 96, micro: auto}")
    asked = config(*auto)
    assert micro_batches_to_profile(asked.training.batch, plan_workers(asked.resources)) == (1, 24)
    found = {
        gib: plan(*auto, f"resources.device_memory_gib={gib}", model=measured(PSI // 100)).batch
        for gib in (2.9, 4, 8, 16, 20, 64)
    }
    assert {gib: batch.micro for gib, batch in found.items()} == {2.9: 1, 4: 2, 8: 6, 16: 12, 20: 12, 64: 24}
    for gib, batch in found.items():
        assert batch.global_ == 96 == batch.micro * batch.accumulation * 4
        assert plan(*auto, f"resources.device_memory_gib={gib}", model=measured(PSI // 100)).memory.fits  # type: ignore[union-attr]


def test_auto_on_elastic_workers_fits_any_number_of_them(plan: Callable[..., TrainPlan]) -> None:
    config = ("resources.workers=[2,4]", "training.batch={global: 48, micro: auto}", "strategy=zero3")
    small = "training.strategy={kind: zero, stage: 3, bucket_mb: 1}"
    made = plan(*config, small, "resources.device_memory_gib=10", model=measured(PSI // 4))
    assert made.memory is not None
    assert made.memory.fits
    worst = made.memory.estimate.device["optimizer state"]
    assert worst == 12 * (PSI // 4) // 2, "the fewest workers hold the most"
    assert {batch.workers for batch in made.batches} == {2, 3, 4}


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ("resources.device_memory_gib=8",),
            (
                "not even 1 fits with ddp: 17.49 GiB of 8.00 GiB, the largest part optimizer state (got"
                " auto); use a strategy that fits: fsdp"
            ),
        ),
        (
            ("resources.device_memory_gib=1",),
            "no strategy fits as it comes: try gradient_checkpointing, offloading, more workers",
        ),
        (
            ("resources.accelerator_type=Future1",),
            (
                "memory of the device, and that of accelerator_type Future1 is not known; set"
                " resources.device_memory_gib"
            ),
        ),
        (
            ("training.batch.global=null",),
            "training.batch.micro: auto needs the global batch; add training.batch.global=64",
        ),
        (
            ("training.batch.accumulation=2",),
            "training.batch.accumulation: auto works the accumulation out (got 2); drop it",
        ),
        (("training.batch.global=63",), "nearest: training.batch.global=64"),
    ],
)
def test_what_auto_cannot_do_is_refused_with_a_remedy(
    overrides: tuple[str, ...], says: str, plan: Callable[..., TrainPlan]
) -> None:
    with pytest.raises(PlanError) as refused:
        plan("training.batch.micro=auto", *overrides, model=measured(units=(PSI // 20,) * 20))
    assert says in str(refused.value)


def test_between_two_measured_sizes_a_straight_line() -> None:
    passes = (Pass(1, 10, 20, 30), Pass(3, 30, 60, 90))
    assert at(passes, 2) == Pass(2, 20, 40, 60)
    assert at(passes, 5) == Pass(5, 50, 100, 150)
    assert at(passes, 3) == passes[1]


def test_buckets_are_counted_whole(plan: Callable[..., TrainPlan]) -> None:
    assert by_name(plan())["zero2"].device["communication"] == 200 * MIB
    twice = by_name(
        plan("strategy=zero2", "training.strategy.overlap_comm=true", "training.strategy.bucket_mb=50")
    )["zero2"]
    assert twice.device["communication"] == 2 * 50 * MIB
