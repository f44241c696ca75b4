"""What measuring promises: the bytes of a real pass without running one, and an honest word where that is not
possible.
"""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint as recompute
from torch.utils.data import default_collate

from raystack.code.loading import load as load_task
from raystack.config import load
from raystack.config.run import RunConfig
from raystack.errors import ConfigError
from raystack.plan import TrainPlan, plan_training
from raystack.plan.memory import micro_batches_to_profile
from raystack.plan.scale import plan_workers
from raystack.task import Dataset, MapDataset, Task
from raystack.training.losses import parts
from raystack.training.optimizer import make_optimizer
from raystack.training.profile import profile_subprocess
from raystack.training.profile.measure import SAMPLES, measure, samples_of
from raystack.training.strategy import build
from raystack.training.strategy.fsdp import FullyShard
from raystack.training.world import World

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
ALONE = World(0, 1, torch.device("cpu"))
GPT = ROOT / "examples" / "02_language_model" / "config.yaml"
TINY = ROOT / "tests" / "tiny" / "config.yaml"
SGD = ("~training.optimizer.betas", "training.optimizer.kind=sgd", "training.optimizer.momentum=0.9")
SMALL = ("resources=inline", "training.batch.global=4", "task.args.megabytes=0.1", "task.args.context=32")


def config(*overrides: str, path: Path = GPT) -> RunConfig:
    return load(path, [*(SMALL if path == GPT else ()), *overrides])


def planned(config: RunConfig) -> TrainPlan:
    return plan_training(
        config,
        "measured",
        measure(config, micro_batches_to_profile(config.training.batch, plan_workers(config.resources))),
    )


def built(task: Task, config: RunConfig) -> nn.Module:
    """The task's model, set up as the loop does."""
    model = task.model()
    if config.training.gradient_checkpointing:
        for block in task.blocks(model):  # type: ignore[attr-defined]
            block.forward = partial(recompute, block.forward, use_reentrant=False)
    return model


def samples(task: Task) -> MapDataset:
    return cast(MapDataset, task.train_data())


def autocast(config: RunConfig) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=config.training.precision == "bf16")


def saved_for_backward(config: RunConfig, micro: int) -> int:
    """Bytes of storages that autograd really keeps, weights excepted."""
    task = load_task(config.task)
    model, data = built(task, config), samples(task)
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        if (storage := tensor.untyped_storage()).data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast(config):
        task.loss(model, default_collate([data[index] for index in range(micro)]))
    return sum(storage.nbytes() for storage in kept.values())


def real_peak(config: RunConfig, plan: TrainPlan) -> int:
    """The most bytes that two steps of training by hand have allocated, by torch's profiler."""
    task = load_task(config.task)
    data = samples(task)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        model = built(task, config)
        optimizer = make_optimizer(config.training.optimizer, model.named_parameters())
        for _ in range(2):
            for _ in range(plan.batch.accumulation):
                with autocast(config):
                    batch = default_collate([data[index] for index in range(plan.batch.micro)])
                    loss = parts(task.loss(model, batch)).total
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert profiler.profiler is not None
    result: Any = profiler.profiler.kineto_results
    live = peak = 0
    for event in sorted(
        (event for event in result.events() if event.name() == "[memory]"), key=lambda event: event.start_ns()
    ):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("training.precision=bf16",),
        ("training.gradient_checkpointing=true",),
        ("training.batch.accumulation=2", "task.args.dropout=0"),
        ("training.batch.global=1", "task.args.context=16", *SGD),
    ],
)
def test_activations_are_within_a_percent_and_the_peak_within_ten(overrides: tuple[str, ...]) -> None:
    asked = config(*overrides)
    plan = planned(asked)
    assert plan.memory is not None
    assert plan.memory.how == "fake"
    device = plan.memory.estimate.device
    assert device["activations"] == pytest.approx(saved_for_backward(asked, plan.batch.micro), rel=0.01)
    assert sum(device.values()) - device["overhead"] == pytest.approx(real_peak(asked, plan), rel=0.10)


def test_a_model_that_fits_no_machine_is_measured() -> None:
    found = measure(config("task.args.width=65536", "task.args.depth=2", "task.args.heads=64"), (1,))
    assert found.trainable == pytest.approx(2 * 12 * 65536**2, rel=0.01), (
        "12 width^2 parameters in each block: 400 GB of them"
    )
    assert len(found.units) == 2
    assert found.trainable_bytes == 4 * found.trainable


@pytest.mark.parametrize("wrap", ["size", "blocks", "auto", "whole"])
def test_the_memory_plan_counts_the_units_that_fsdp_wraps(wrap: str, request: pytest.FixtureRequest) -> None:
    """Twelve blocks of 1 MiB and more, and an embedding whose weight is the head's too."""
    sizes = ("task.args.width=192", "task.args.depth=12", "task.args.heads=4")
    asked = config("strategy=fsdp", f"training.strategy.wrap={wrap}", "training.strategy.wrap_mb=1", *sizes)
    found = measure(asked, (1,))
    task = load_task(asked.task)
    request.addfinalizer(dist.destroy_process_group)
    plan = plan_training(asked, "measured")
    wrapped = cast(FullyShard, build(plan, *_parts(task), partial(torch.optim.SGD, lr=0.1), ALONE))
    assert [*found.units] == [
        sum(parameter.numel() for parameter in unit.parameters()) for unit in wrapped._units[:-1]
    ]
    assert len(found.units) == (0 if wrap == "whole" else 12)


def _parts(task: Task) -> tuple[nn.Module, list[nn.Module]]:
    """The model and its blocks."""
    model = task.model()
    return model, list(task.blocks(model))  # type: ignore[attr-defined]


def test_on_a_gpu_attention_keeps_no_matrix() -> None:
    """With dropout the CPU's attention keeps its weights, [batch, heads, time, time]; the fused kernels of a
    GPU do not.
    """
    cpu, gpu = (measure(config(f"resources.gpus_per_worker={gpus}"), (4,)).passes[0] for gpus in (0, 1))
    weights = 4 * 6 * 32 * 32 * 4
    blocks = 4
    assert cpu.activations - gpu.activations > blocks * weights


def test_blocks_that_are_recomputed_have_the_attention_of_a_gpu_again() -> None:
    on_gpu = ("resources.gpus_per_worker=1", "training.precision=bf16")
    whole, again = (
        measure(config(*on_gpu, f"training.gradient_checkpointing={on}"), (4,)) for on in ("false", "true")
    )
    assert again.how == "fake"
    assert again.passes[0].activations < whole.passes[0].activations / 2


def test_weights_in_low_precision_are_measured_beside_autocast() -> None:
    found = measure(config("training.precision=bf16"), (2,))
    assert found.low_passes[0].activations < found.passes[0].activations


def test_frozen_parameters_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "frozen.py").write_text(
        "from importlib.util import module_from_spec, spec_from_file_location\nspec ="
        f" spec_from_file_location('tiny_task', {str(TINY.parent / 'task.py')!r})\nmodule ="
        " module_from_spec(spec)\nspec.loader.exec_module(module)\nclass Frozen(module.Tiny):\n    def"
        " model(self):\n        model = super().model()\n        model[0].requires_grad_(False)\n       "
        " return model\n"
    )
    found = measure(config("task.entry=frozen:Frozen", f"+task.folder={tmp_path}", path=TINY), (8,))
    assert (found.frozen, found.trainable) == (4 * 8 + 8, 8 + 1)


def test_the_longest_samples_are_measured_where_lengths_are_known() -> None:
    """A stream has no lengths: its first samples count."""

    class Padded:
        lengths = (1, 9, 2, 7)

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> int:
            return self.lengths[index]

    class Endless:
        def stream(self, start: int) -> Iterator[int]:
            yield from range(start, 1000)

    stream = ("training.epochs=null", "training.steps=3", "training.data.shuffle=false")
    asked = config(path=TINY)
    assert measured_samples(Padded(), asked) == [9, 7, 2, 1]
    assert measured_samples(Endless(), config(*stream, path=TINY)) == list(range(SAMPLES))


def measured_samples(data: Dataset, config: RunConfig) -> list[Any]:
    task = load_task(config.task)
    task.train_data = lambda: data  # type: ignore[method-assign]
    return samples_of(task, config)


def test_what_fake_tensors_cannot_do_is_run_small_and_said(tmp_path: Path) -> None:
    asked = config(f"task.args.ledger={tmp_path}", path=TINY)
    found = measure(asked, (8, 32))
    assert found.how == "real"
    assert found.why is not None
    assert "task.py:" in found.why
    assert [taken.micro for taken in found.passes] == [1, 2]
    fake = measure(config(path=TINY), (1, 2))
    assert fake.how == "fake"
    assert fake.passes == found.passes


def test_a_mistake_of_the_task_is_told_with_its_line() -> None:
    with pytest.raises(
        ConfigError, match=r"task: loss: the task raised: ValueError: a bad sample; see task.py:\d+"
    ):
        measure(config("task.args.raise_at=2", path=TINY), (1, 2))
    with pytest.raises(
        ConfigError, match=r"task: model: the task raised: RuntimeError: no such layer; see task.py:\d+"
    ):
        measure(config("task.args.broken=model", path=TINY), (1,))


def test_measuring_apart_gives_the_same_and_raises_the_same() -> None:
    asked = config(path=TINY)
    assert profile_subprocess.measure(asked, (1, 4)) == measure(asked, (1, 4))
    with pytest.raises(ConfigError, match=r"task: model: the task raised: RuntimeError: no such layer"):
        profile_subprocess.measure(config("task.args.broken=model", path=TINY), (1,))


def test_a_dry_run_finds_the_largest_micro_batch_and_shows_every_strategy() -> None:
    auto = ("training.batch.micro=auto", "resources.device_memory_gib=1")
    command = [sys.executable, "-m", "raystack.train", str(TINY), "--dry-run", "--memory", *auto]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "measuring the model" in done.stderr
    assert "32 = 32 micro x 1 accumulation x 1 worker(s)" in done.stdout
    assert "GiB per worker with ddp, micro batch 32: it fits" in done.stdout
    heads = next(line for line in done.stdout.splitlines() if line.startswith("  GiB"))
    assert heads.split() == ["GiB", "*", "ddp", "fsdp", "zero1", "zero2", "zero3"]
