"""The commands that are compared: raystack on a config, and loops written by hand on settings that say the
same.

In: overrides of gpt/config.yaml. Out: what to type in a shell. All of them train on the same samples in the
same order.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from running import ROOT

from raystack import config as configs
from raystack.code.loading import load
from raystack.config.optimizer import AdamW
from raystack.config.strategy import Zero
from raystack.plan import plan_training
from raystack.task import MapDataset
from raystack.training.data import SampleOrder

GPT = ROOT / "benchmarks" / "gpt"
EXAMPLE = ROOT / "examples" / "02_language_model"
PYTHON = sys.executable
ACCELERATE = {"ACCELERATE_USE_CPU": "true"}
"""In the environment of `accelerate`: keeps its processes on the CPU."""


@dataclass(frozen=True)
class Run:
    """One command: its folder, and how its config differs from gpt/config.yaml."""

    folder: Path
    overrides: tuple[str, ...]

    @property
    def settings(self) -> Path:
        """What the loops written by hand read."""
        return self.folder / "settings.json"

    def config(self) -> configs.RunConfig:
        """The config that raystack runs."""
        return configs.load(GPT / "config.yaml", self.overrides)


def size_of(config: configs.RunConfig) -> tuple[int, int]:
    """Global batch, and the number of workers."""
    batch, workers = config.training.batch.global_, config.resources.workers
    assert batch is not None
    return batch, workers if isinstance(workers, int) else 1


def write_order(config: configs.RunConfig, path: Path) -> Path:
    """The samples of every step and worker, int64 [steps, workers, micro], as raystack will draw them."""
    steps, (batch, workers) = config.training.steps, size_of(config)
    data = cast(MapDataset, load(config.task).train_data())
    assert steps is not None
    order = SampleOrder(len(data), config.experiment.seed).at(np.arange(steps * batch))
    np.save(path, order.reshape(steps, workers, batch // workers))
    return path


def prepare(run: Run, order: Path) -> None:
    """Make the folder of a run, with its settings."""
    run.folder.mkdir()
    config = run.config()
    training, optimizer, strategy = config.training, config.training.optimizer, config.training.strategy
    assert isinstance(optimizer, AdamW)
    settings = {
        "entry": config.task.entry,
        "task": dict(config.task.args),
        "seed": config.experiment.seed,
        "steps": training.steps,
        "save_every": training.checkpoint.every_steps,
        "workers": size_of(config)[1],
        "device": "cuda" if config.resources.gpus_per_worker else "cpu",
        "threads": config.resources.cpus_per_worker,
        "order": str(order),
        "state": str(run.folder / "state"),
        "storage": str(run.folder / "storage"),
        **optimizer.model_dump(include={"lr", "betas", "eps", "weight_decay"}),
        **training.schedule.model_dump(include={"warmup_steps", "floor"}),
        "clip_norm": training.clip_norm,
        "precision": training.precision,
        "compile": training.compile,
        "strategy": strategy.kind,
    }
    if isinstance(strategy, Zero):
        settings["deepspeed"] = plan_training(config, "benchmark").deepspeed
    run.settings.write_text(json.dumps(settings), encoding="utf-8")


def raystack(run: Run, storage: Path, *further: str) -> list[str]:
    """raystack, as one starts it."""
    return [
        PYTHON,
        "-m",
        "raystack.train",
        str(GPT / "config.yaml"),
        *run.overrides,
        f"experiment.storage={storage}",
        *further,
    ]


def torchrun(run: Run) -> list[str]:
    """The loop by hand, with a process for each worker."""
    workers = str(size_of(run.config())[1])
    return [
        PYTHON,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        workers,
        str(GPT / "by_hand.py"),
        str(run.settings),
    ]


def ray_train(run: Run, script: str = "on_ray.py") -> list[str]:
    """A loop by hand inside bare Ray Train."""
    return [PYTHON, str(GPT / script), str(run.settings)]


def accelerate(run: Run) -> list[str]:
    """`accelerate launch --cpu` starts one process unless there is an MPI; --multi_gpu is its name for
    starting several.
    """
    workers = str(size_of(run.config())[1])
    options: Sequence[str] = (
        "--multi_gpu",
        "--num_processes",
        workers,
        "--num_machines",
        "1",
        "--main_process_port",
        "0",
    )
    plain = ("--mixed_precision", "no", "--dynamo_backend", "no")
    return [
        PYTHON,
        "-m",
        "accelerate.commands.launch",
        *options,
        *plain,
        str(GPT / "on_accelerate.py"),
        str(run.settings),
    ]
