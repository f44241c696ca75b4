"""GPT-2 of 124 million parameters under each strategy on one GPU: the memory that the plan predicts, beside
what torch takes, the speed, and the losses.

Each case is a training of 40 steps in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from typing import Any

import torch
from commands import EXAMPLE, GPT
from figures import machine, parse, parser, show, write

from raystack.events import Event, Stepped
from raystack.experiment import Experiment
from raystack.plan import TrainPlan

GIB = 2**30
LONGEST_S = 300
SHAPE = "context: 1024, width: 768, depth: 12, heads: 12, dropout: 0.0, vocabulary: 50257"
COMMON = (
    "resources=inline",
    "resources.gpus_per_worker=1",
    "task.entry=timed:Wide",
    "training.log_every_steps=10",
)
CASES: dict[str, tuple[str, ...]] = {
    "ddp fp32": ("strategy=ddp", "training.precision=fp32"),
    "ddp bf16": ("strategy=ddp", "training.precision=bf16"),
    "ddp bf16, recomputed": (
        "strategy=ddp",
        "training.precision=bf16",
        "training.batch.global=32",
        "training.gradient_checkpointing=true",
    ),
    "fsdp bf16": ("strategy=fsdp", "training.precision=bf16"),
    "zero1 bf16": ("strategy=zero1", "training.precision=bf16"),
    "zero2 bf16": ("strategy=zero2", "training.precision=bf16"),
    "zero3 bf16": ("strategy=zero3", "training.precision=bf16"),
}
"""Overrides of gpt/config.yaml, with 16 samples of 1024 tokens where nothing else is said."""


def main() -> int:
    """Run the cases one after another, print the table, write the JSON."""
    options = parser(__doc__, "gpu", quick="two cases of 20 steps")
    options.add_argument("--only", nargs="+", choices=CASES, help="cases to run")
    options.add_argument("--steps", type=int, help="optimizer steps of each case (40)")
    options.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    full = {"only": list(CASES), "steps": 40}
    arguments = parse(options, "gpu", full, {"only": ["ddp bf16", "fsdp bf16"], "steps": 20})
    if not torch.cuda.is_available():
        options.error("PyTorch sees no GPU")
    if arguments.case:
        print(json.dumps(_case(arguments.case, arguments.steps)))
        return 0
    rows = {name: _alone(name, arguments.steps) for name in arguments.only}
    settings = {
        "device": torch.cuda.get_device_name(),
        "steps": arguments.steps,
        "batch": 16,
        "context": 1024,
    }
    columns = ("GiB", "planned", "peak", "planned / peak", "reserved", "process", "tokens/s", "loss")
    show(f"GPT-2 on one {settings['device']}", columns, [_row(name, row) for name, row in rows.items()])
    if arguments.output:
        packages = machine("torch", "deepspeed")
        write(arguments.output, {"benchmark": "gpu", "machine": packages, "settings": settings, "rows": rows})
    return 0


def _alone(name: str, steps: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--case", name, "--steps", str(steps)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=LONGEST_S, check=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def _case(name: str, steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        shape = f"task.args={{example: {EXAMPLE}, record: {folder}/record, steps: {steps + 1}, {SHAPE}}}"
        words = (*COMMON, "training.batch.global=16", *CASES[name], shape)
        storage = f"experiment.storage={folder}"
        experiment = Experiment(GPT / "config.yaml", *words, storage, f"training.steps={steps}")
        plan = experiment.plan(memory=True).plan
        assert isinstance(plan, TrainPlan)
        assert plan.memory is not None
        events: list[Event] = []
        experiment.train(events.append)
    reports = [event.metrics for event in events if isinstance(event, Stepped)]
    lines = plan.memory.estimate.device
    return {
        "planned": sum(size for line, size in lines.items() if line != "overhead"),
        "peak": torch.cuda.max_memory_allocated(),
        "reserved": torch.cuda.max_memory_reserved(),
        "process": _held(),
        "lines": dict(lines),
        # The last report but one: the last is of the step with the checkpoint.
        "tokens_per_s": reports[-2]["speed/tokens_per_s"],
        "losses": [report["train/loss"] for report in reports],
    }


def _held() -> int:
    """Bytes of the device that are not free; all of them are this process's where nothing else runs."""
    free, total = torch.cuda.mem_get_info()
    return total - free


def _row(name: str, row: dict[str, Any]) -> list[str]:
    sizes = {key: f"{row[key] / GIB:.2f}" for key in ("planned", "peak", "reserved", "process")}
    ratio = f"{row['planned'] / row['peak']:.3f}"
    speed = f"{row['tokens_per_s']:,.0f}"
    loss = f"{row['losses'][-1]:.3f}"
    return [name, sizes["planned"], sizes["peak"], ratio, sizes["reserved"], sizes["process"], speed, loss]


if __name__ == "__main__":
    sys.exit(main())
