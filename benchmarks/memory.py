"""How far the memory plan is from the truth: the bytes that it estimates, beside the peak of a training
written by hand.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from figures import RESULTS, machine, show, write
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint as recompute
from torch.utils.data import default_collate

from raystack.code.loading import load as load_task
from raystack.config import RunConfig, load
from raystack.plan import TrainPlan, plan_training
from raystack.plan.footprint import at
from raystack.plan.memory import micro_batches_to_profile
from raystack.plan.scale import plan_workers
from raystack.task import HasBlocks, MapDataset, Task
from raystack.training.losses import parts
from raystack.training.optimizer import make_optimizer
from raystack.training.profile import profile_subprocess

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "examples" / "02_language_model" / "config.yaml"
MIB = 2**20
STEPS = 3

CASES: dict[str, tuple[str, ...]] = {
    "fp32": (),
    "no dropout": ("task.args.dropout=0",),
    "bf16": ("training.precision=bf16",),
    "gradient checkpointing": ("training.gradient_checkpointing=true",),
    "accumulation 4": ("training.batch.accumulation=4",),
    "width 768, 2 samples": ("task.args.width=768", "training.batch.global=2"),
    "sgd": ("~training.optimizer.betas", "training.optimizer.kind=sgd", "training.optimizer.momentum=0.9"),
}
"""Overrides of the config. The wide model is mostly weights, the others are mostly activations."""


def main() -> int:
    """Estimate and measure each case, print the table, write the JSON."""
    arguments = _parse()
    os.environ["RAYSTACK_STORAGE"] = tempfile.gettempdir()
    rows = {
        name: _case(CASES[name], arguments.batch, torch.device(arguments.device)) for name in arguments.only
    }
    settings = {"steps": STEPS, "global_batch": arguments.batch, "device": arguments.device}
    results = {"benchmark": "memory", "machine": machine("torch"), "settings": settings, "rows": rows}
    columns = ("MiB", "activations", "saved", "estimated / saved", "in all", "peak", "estimated / peak")
    show(
        f"one worker on {arguments.device}, ddp: estimated beside measured",
        columns,
        [_row(name, row) for name, row in rows.items()],
    )
    if arguments.output:
        write(arguments.output, results)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, help="global batch (32)")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="default: cuda where there is a GPU, else cpu"
    )
    parser.add_argument("--only", nargs="+", choices=CASES, help="cases to run")
    parser.add_argument(
        "--quick", action="store_true", help="two cases of 4 samples, and no file unless --output names one"
    )
    parser.add_argument("--output", type=Path, help="JSON file to write (benchmarks/results/memory.json)")
    arguments = parser.parse_args()
    arguments.batch = arguments.batch or (4 if arguments.quick else 32)
    arguments.only = arguments.only or (
        ["fp32", "gradient checkpointing"] if arguments.quick else list(CASES)
    )
    arguments.device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.output is None and not arguments.quick:
        arguments.output = RESULTS / "memory.json"
    return arguments


def _case(overrides: tuple[str, ...], batch: int, device: torch.device) -> dict[str, float]:
    gpus = int(device.type == "cuda")
    common = ("resources=inline", f"resources.gpus_per_worker={gpus}", f"training.batch.global={batch}")
    config = load(CONFIG, [*common, *overrides])
    measured = profile_subprocess.measure(
        config, micro_batches_to_profile(config.training.batch, plan_workers(config.resources))
    )
    plan = plan_training(config, "memory", measured)
    assert plan.memory is not None
    lines = plan.memory.estimate.device
    estimated = sum(size for line, size in lines.items() if line != "overhead")
    activations = at(measured.passes, plan.batch.micro).activations
    task = load_task(config.task)
    saved = _saved(task, config, plan, device)
    peak = (_peak_on_gpu if gpus else _peak_on_cpu)(lambda: _train(task, plan, device))
    return {
        "activations": activations,
        "saved": saved,
        "activations_ratio": activations / saved,
        "estimated": estimated,
        "peak": peak,
        "ratio": estimated / peak,
        **{line: size for line, size in lines.items() if size},
    }


def _train(task: Task, plan: TrainPlan, device: torch.device) -> None:
    """A few optimizer steps, as one worker does them."""
    training = plan.training
    model = _model(task, plan.config, device)
    optimizer = make_optimizer(training.optimizer, model.named_parameters())
    data = cast(MapDataset, task.train_data())
    for step in range(STEPS):
        for micro in range(plan.batch.accumulation):
            first = (step * plan.batch.accumulation + micro) * plan.batch.micro
            batch = default_collate([data[first + index] for index in range(plan.batch.micro)]).to(device)
            with _autocast(plan, device):
                loss = parts(task.loss(model, batch)).total
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def _model(task: Task, config: RunConfig, device: torch.device) -> nn.Module:
    model = task.model().to(device)
    if config.training.gradient_checkpointing:
        assert isinstance(task, HasBlocks)
        for block in task.blocks(model):
            block.forward = partial(recompute, block.forward, use_reentrant=False)
    return model


def _autocast(plan: TrainPlan, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=plan.training.precision == "bf16")


def _saved(task: Task, config: RunConfig, plan: TrainPlan, device: torch.device) -> int:
    """Bytes of the storages that autograd keeps for a backward pass, weights excepted."""
    model, data = _model(task, config, device), cast(MapDataset, task.train_data())
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    batch = default_collate([data[index] for index in range(plan.batch.micro)]).to(device)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), _autocast(plan, device):
        task.loss(model, batch)
    return sum(storage.nbytes() for storage in kept.values())


def _peak_on_cpu(action: Callable[[], None]) -> int:
    """The most bytes that `action` has allocated at a time, from what the allocator tells torch's
    profiler.
    """
    with _silent(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    assert profiler.profiler is not None
    result: Any = profiler.profiler.kineto_results
    events = sorted(
        (event for event in result.events() if event.name() == "[memory]"), key=lambda event: event.start_ns()
    )
    live = peak = 0
    for event in events:
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def _peak_on_gpu(action: Callable[[], None]) -> int:
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    action()
    return torch.cuda.max_memory_allocated() - before


@contextmanager
def _silent() -> Iterator[None]:
    """The profiler writes two lines to stderr each time, past Python."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _row(name: str, row: dict[str, float]) -> list[str]:
    def mib(key: str) -> str:
        return f"{row[key] / MIB:.2f}"

    ratios = (f"{row['activations_ratio']:.4f}", f"{row['ratio']:.4f}")
    return [name, mib("activations"), mib("saved"), ratios[0], mib("estimated"), mib("peak"), ratios[1]]


if __name__ == "__main__":
    sys.exit(main())
