"""What training promises, on a GPU: the losses of the CPU under every strategy and precision, checkpoints
that go on anywhere, and errors that say what to do.

`.venv/bin/pytest tests/gpu`, on a machine with one GPU at least.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from processes import ROOT, Command

from raystack.config import load
from raystack.errors import ExhaustedError
from raystack.events import Event, Stepped
from raystack.experiment import Experiment
from raystack.plan import TrainPlan, plan_training
from raystack.training.driver.fit import fit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # compilers and DeepSpeed warn of what users cannot change
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU"),
]

EXAMPLE = ROOT / "examples" / "02_language_model" / "config.yaml"
STEPS = 20
SMALL = (
    "tracking=off",
    "~registry",
    "task.args={context: 32, width: 64, depth: 2, heads: 2, dropout: 0.0}",
    "training.batch.global=16",
    "training.schedule.warmup_steps=2",
    "training.log_every_steps=1",
    "training.checkpoint.every_steps=10",
    "training.evaluate.every_steps=20",
)
GPU = ("resources=inline", "resources.gpus_per_worker=1")
CPU = ("resources=inline",)
BF16, FP16 = "training.precision=bf16", "training.precision=fp16"
NEAR = {"fp32": 1e-3, "bf16": 3e-2, "fp16": 1e-2}
"""Relative, between the losses on the two devices."""


def planned(folder: Path, *overrides: str, steps: int = STEPS) -> TrainPlan:
    config = load(EXAMPLE, [*SMALL, f"experiment.storage={folder}", f"training.steps={steps}", *overrides])
    return plan_training(config, "on-gpu")


def trained(plan: TrainPlan, *, resume: bool = False) -> dict[int, Stepped]:
    events: list[Event] = []
    fit(plan, events.append, resume=resume)
    return {event.step: event for event in events if isinstance(event, Stepped)}


def losses(steps: dict[int, Stepped]) -> list[float]:
    return [each.metrics["train/loss"] for each in steps.values()]


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return losses(trained(planned(tmp_path_factory.mktemp("cpu"), *CPU)))


@pytest.mark.parametrize(
    "overrides",
    [
        ("strategy=ddp",),
        ("strategy=ddp", BF16),
        ("strategy=ddp", BF16, "training.compile=true"),
        ("strategy=ddp", BF16, "training.gradient_checkpointing=true"),
        ("strategy=fsdp",),
        ("strategy=fsdp", BF16),
        ("strategy=fsdp", BF16, "training.strategy.offload=true"),
        ("strategy=zero1", BF16),
        ("strategy=zero2", FP16),
        ("strategy=zero3", BF16),
    ],
    ids=" ".join,
)
def test_the_losses_are_those_of_the_cpu(
    overrides: Sequence[str], on_cpu: list[float], tmp_path: Path
) -> None:
    if overrides[0].startswith("strategy=zero"):
        pytest.importorskip("deepspeed")
    plan = planned(tmp_path, *GPU, *overrides)
    mine = losses(trained(plan))
    assert len(mine) == STEPS
    assert mine[-1] < mine[0] - 1
    assert mine == pytest.approx(on_cpu, rel=NEAR[plan.training.precision])


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize(("before", "after"), [(GPU, CPU), (CPU, GPU)], ids=["to the CPU", "to the GPU"])
def test_a_checkpoint_goes_on_on_the_other_device(
    before: Sequence[str], after: Sequence[str], strategy: str, on_cpu: list[float], tmp_path: Path
) -> None:
    # The schedule depends on the run's length, so it is constant here.
    flat = (f"strategy={strategy}", "training.schedule={kind: constant, warmup_steps: 2}")
    whole = losses(trained(planned(tmp_path / "whole", *before, *flat)))
    first = trained(planned(tmp_path / "parts", *before, *flat, steps=STEPS // 2))
    rest = trained(planned(tmp_path / "parts", *after, *flat), resume=True)
    assert [*first, *rest] == list(range(1, STEPS + 1))
    assert losses(first) + losses(rest) == pytest.approx(whole, rel=NEAR["fp32"])


def test_the_share_of_the_peak_is_told(tmp_path: Path) -> None:
    last = trained(planned(tmp_path, *GPU, BF16))[STEPS]
    if not any(name in torch.cuda.get_device_name() for name in ("H100", "H200", "A100", "L4")):
        pytest.skip("this GPU's peak is not known")
    assert 0 < last.metrics["speed/mfu"] < 1


def test_a_worker_in_a_process_trains_to_the_end(tmp_path: Path) -> None:
    assert command("resources=processes", f"experiment.storage={tmp_path}").wait() == 0


def test_a_gpu_that_is_hidden_is_refused(tmp_path: Path) -> None:
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ran = command(*GPU, f"experiment.storage={tmp_path}", environment=hidden)
    assert ran.wait() == 3
    assert "resources.gpus_per_worker: the worker trains on a GPU, and PyTorch" in ran.output


def test_too_little_memory_is_told_in_a_line(tmp_path: Path) -> None:
    large = "task.args={context: 4096, width: 4096, depth: 1, heads: 16, megabytes: 20}"
    free = torch.cuda.mem_get_info()[0]
    # The hidden layer of the block alone has four numbers of two bytes for each of a token's features.
    batch = free // (4096 * 4096 * 4 * 2) + 1
    with pytest.raises(ExhaustedError) as raised:
        trained(planned(tmp_path, *GPU, BF16, large, f"training.batch.global={batch}", steps=1))
    (line,) = str(raised.value).splitlines()
    assert "CUDA out of memory" in line
    assert "smaller training.batch.micro" in line
    assert len(line) < 400
    torch.cuda.empty_cache()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_the_memory_plan_is_near_the_peak(strategy: str, tmp_path: Path) -> None:
    shape = "task.args={context: 256, width: 512, depth: 4, heads: 8, dropout: 0.0}"
    words = (*SMALL, *GPU, BF16, shape, f"strategy={strategy}", f"experiment.storage={tmp_path}")
    experiment = Experiment(EXAMPLE, *words, f"training.steps={STEPS}")
    plan = experiment.plan(memory=True).plan
    assert isinstance(plan, TrainPlan)
    memory = plan.memory
    assert memory is not None
    assert memory.memory == pytest.approx(torch.cuda.mem_get_info()[1], rel=0.01)
    tensors = sum(size for line, size in memory.estimate.device.items() if line != "overhead")
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    trained(planned(tmp_path, *GPU, BF16, shape, f"strategy={strategy}"))
    assert torch.cuda.max_memory_allocated() - before == pytest.approx(tensors, rel=0.15)


def command(*overrides: str, environment: dict[str, str] | None = None) -> Command:
    start = partial(Command, environment=environment)
    return start(
        ["python", "-m", "raystack.train", str(EXAMPLE), *SMALL, f"training.steps={STEPS}", *overrides]
    )
