"""What every strategy promises: the same training as plain torch, and checkpoints that fit any other, on any
number of workers.

The numbers behind the tolerances are in docs: float32 differs from plain torch in the last bit or two of a
loss, bfloat16 by about one part in a thousand in the mean.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from strategy_workers import fp16_works
from torch import nn

from raystack.config.optimizer import AdamW
from raystack.config.strategy import FSDP
from raystack.errors import ConfigError, PlanError
from raystack.plan import TrainPlan
from raystack.training.optimizer import make_optimizer
from raystack.training.strategy import zero
from raystack.training.strategy.fsdp import FullyShard
from raystack.training.strategy.units import units
from raystack.training.world import World

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("strategy_workers.py")
STRATEGIES = ("ddp", "fsdp", "zero0", "zero1", "zero2", "zero3")
SAVED, AFTER = 15, 5

Results = dict[str, list[tuple[float, float]]]
"""(loss, gradient norm) of each step, by case; see strategy_workers.py."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("strategies")
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=280
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "", "DeepSpeed and torch have nothing to tell the user"
    read: Results = json.loads((folder / "results.json").read_text())
    return read


def apart(one: list[tuple[float, float]], other: list[tuple[float, float]], column: int = 0) -> float:
    """Largest relative difference of the losses (column 0) or norms (1) over the steps that both have."""
    assert one
    return max(abs(a[column] - b[column]) / abs(b[column]) for a, b in zip(one, other, strict=False))


def after_saving(results: Results, case: str) -> list[tuple[float, float]]:
    """What the run itself went on with after its checkpoint."""
    return results[case][SAVED : SAVED + AFTER]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", STRATEGIES)
def test_losses_and_norms_are_those_of_plain_torch(results: Results, name: str, workers: int) -> None:
    ran = results[f"fp32/{name}@{workers}"]
    assert len(ran) == (30 if workers == 2 else SAVED + AFTER)
    assert apart(ran, results["plain"]) < 1e-6
    assert apart(ran, results["plain"], 1) < 1e-6


def test_the_plain_run_learns_and_clips(results: Results) -> None:
    losses = [loss for loss, _ in results["plain"]]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert max(norm for _, norm in results["plain"]) > 0.5


@pytest.mark.parametrize("name", ["fsdp offload", "zero2 offload", "zero3 offload"])
def test_offload_changes_no_loss(results: Results, name: str) -> None:
    assert apart(results[f"fp32/{name}@2"], results["plain"]) < 1e-6


@pytest.mark.parametrize("name", ["fsdp sgd recompute", "zero1 sgd", "zero3 sgd recompute"])
def test_sgd_with_nesterov_momentum_is_torchs_and_recomputation_changes_no_loss(
    results: Results, name: str
) -> None:
    assert apart(results[f"fp32/{name}@2"], results["plain sgd"]) < 1e-6


@pytest.mark.parametrize("name", STRATEGIES)
def test_bf16_stays_near_float32_and_is_not_float32(results: Results, name: str) -> None:
    difference = apart(results[f"bf16/{name}@2"], results["plain"])
    assert 1e-5 < difference < 1e-2


@pytest.mark.skipif(not fp16_works(), reason="this CPU does not compute in fp16")
@pytest.mark.parametrize("name", ["zero1", "zero2", "zero3"])
def test_fp16_skips_steps_that_overflow_and_goes_on_from_its_loss_scale(results: Results, name: str) -> None:
    ran = results[f"fp16/{name}@2"]
    norms = [norm for _, norm in ran]
    assert norms[0] == float("inf")
    assert norms[-1] < float("inf")
    assert results[f"fp16/{name}@2 > {name}@2"] == after_saving(results, f"fp16/{name}@2")


@pytest.mark.parametrize("source", STRATEGIES)
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_checkpoint_of_two_workers_goes_on_under_any_strategy_on_one(
    results: Results, name: str, source: str
) -> None:
    ran = results[f"fp32/{source}@2 > {name}@1"]
    assert apart(ran, after_saving(results, f"fp32/{source}@2")) < 1e-6


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_checkpoint_of_one_worker_goes_on_under_another_strategy_on_two(
    results: Results, name: str
) -> None:
    source = f"fp32/{STRATEGIES[STRATEGIES.index(name) - 1]}@1"
    assert apart(results[f"{source} > {name}@2"], after_saving(results, source)) < 1e-6


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_bf16_checkpoint_goes_on_on_another_number_of_workers(results: Results, name: str) -> None:
    assert apart(results[f"bf16/{name}@2 > {name}@1"], after_saving(results, f"bf16/{name}@2")) < 1e-3


def test_fsdp_refuses_what_it_cannot_split_or_gather_alone() -> None:
    alone, adam = World(0, 1, torch.device("cpu")), partial(make_optimizer, AdamW())
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    scalar = nn.Sequential(nn.Linear(3, 3))
    scalar.register_parameter("scale", nn.Parameter(torch.ones(())))
    by_blocks = FSDP(kind="fsdp", wrap="blocks")
    for model, blocks, rule in (
        (tied, [], "which blocks"),
        (tied, [tied[0]], "shares a parameter"),
        (scalar, [scalar[0]], "'scale'"),
    ):
        with pytest.raises(ConfigError, match=rule):
            FullyShard(by_blocks, "fp32", model, blocks, adam, alone)


def test_fsdp_gathers_the_tasks_blocks_or_large_modules_without_being_asked() -> None:
    big = [nn.Linear(512, 512, bias=False) for _ in range(3)]
    model = nn.Sequential(nn.Linear(4, 512), nn.ModuleList(big[:2]), big[2], nn.Linear(512, 4))
    auto = FSDP(kind="fsdp", wrap_mb=1)
    assert units(auto, model, [model[3]]) == [model[3]]
    assert units(auto, model, [nn.ReLU()]) == big, "a block without parameters is none"
    assert units(auto, model, []) == big
    model[0] = nn.Linear(512, 512, bias=False)
    model[0].weight = big[2].weight
    assert units(auto, model, [big[2]]) == big[:2], "one that shares its weight is gathered with the rest"
    assert units(FSDP(kind="fsdp", wrap="whole"), model, [big[0]]) == []
    small = [nn.Linear(128, 128) for _ in range(20)]
    nested = nn.Sequential(
        nn.ModuleList([nn.ModuleList(small[:10]), nn.ModuleList([*small[10:], nn.ReLU()])])
    )
    assert units(auto, nested, []) == small, "a list of lists has no forward pass either"


def test_zero_refuses_a_precision_that_the_device_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DS_ACCELERATOR", "LOCAL_RANK"):
        monkeypatch.setenv(name, "cpu" if name == "DS_ACCELERATOR" else "0")
    accelerator = zero._import("cpu").accelerator.get_accelerator()
    monkeypatch.setattr(accelerator, "is_fp16_supported", lambda: False)
    zero.check_precision("bf16", "cpu")
    with pytest.raises(
        PlanError, match=r"training.precision: this machine's cpu does not .* \(got fp16\); use bf16 or fp32"
    ):
        zero.check_precision("fp16", "cpu")


def test_zero_starts_the_engine_with_exactly_the_json_of_the_plan(
    plan_tiny: Callable[..., TrainPlan], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for name in ("DS_ACCELERATOR", "LOCAL_RANK"):
        monkeypatch.setenv(name, "cpu" if name == "DS_ACCELERATOR" else "0")
    given: list[dict[str, Any]] = []

    class StartedError(Exception):
        """The engine was asked for; what it would do next is of no interest here."""

    def initialize(**options: Any) -> None:
        given.append(options["config"])
        raise StartedError

    monkeypatch.setattr(zero._import("cpu"), "initialize", initialize)
    decided = plan_tiny("strategy=zero2", "resources.workers=inline")
    assert decided.deepspeed is not None
    shown = {**decided.deepspeed, "wall_clock_breakdown": True, "steps_per_print": 77}
    request.addfinalizer(dist.destroy_process_group)
    with pytest.raises(StartedError):
        zero.ZeroEngine(
            replace(decided, deepspeed=shown),
            nn.Linear(2, 2),
            partial(make_optimizer, AdamW()),
            World(0, 1, torch.device("cpu")),
        )
    assert given == [shown]


def test_zero_without_deepspeed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    for name in ("DS_ACCELERATOR", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(ConfigError, match=r"pip install 'raystack-ml\[deepspeed\]'"):
        zero._import("cpu")
