"""What raystack adds to a training step, in microseconds: one worker, in this process, and a model so small
that it shows.

The whole: the time between two calls of the task's loss, in raystack's loop and in one written by hand, in
turns. The parts: what raystack's loop does and the other does not, each run by itself with the arguments it
has in the loop.
"""

import argparse
import itertools
import math
import statistics
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import small
import torch
from figures import RESULTS, machine, show, spread, write
from torch import nn
from torch.utils.data import DataLoader

from raystack.code.loading import load
from raystack.config.run import RunConfig
from raystack.events import Event, Stepped
from raystack.plan import TrainPlan, plan_training
from raystack.plan.naming import run_paths
from raystack.task import MapDataset
from raystack.training.data import BatchPlan, SampleOrder, to_device, training_batches
from raystack.training.graceful_stop import GracefulStop
from raystack.training.loop import WorkerSpec, train
from raystack.training.optimizer import make_optimizer
from raystack.training.phases import Phases
from raystack.training.schedule import rate_factor
from raystack.training.throughput import Throughput
from raystack.training.watchdog.hang import Orders, StepPhase
from raystack.training.watchdog.heartbeat import HeartbeatSender
from raystack.training.world import World

BATCH, SEED, PEAK, CLIP, WARMUP, LOG_EVERY = 16, 1, 1e-3, 1.0, 50, 10
CPU = torch.device("cpu")
WORLD = World(0, 1, CPU)
PHASES: tuple[StepPhase, ...] = ("data", "forward", "backward", "optimizer")
STEP_S = 0.3
"""A step of benchmarks/training.py takes about this long: what the overhead is a fraction of."""


def main() -> int:
    """Measure, print the tables, write the JSON."""
    arguments = _parse()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        plan = _plan(folder, arguments.steps)
        runs: dict[str, list[float]] = {"raystack": [], "by hand": []}
        for number in range(arguments.rounds):
            loops = [("raystack", _raystack), ("by hand", _by_hand)]
            for name, loop in loops[:: 1 if number % 2 else -1]:
                runs[name].append(_step_us(loop, plan))
        parts = _parts(plan, arguments.calls)
    added = [ours - theirs for ours, theirs in zip(runs["raystack"], runs["by hand"], strict=True)]
    results = {
        "benchmark": "overhead",
        "machine": machine("torch", "numpy"),
        "settings": {"rounds": arguments.rounds, "steps": arguments.steps, "log_every": LOG_EVERY},
        "step_us": {name: spread(values) for name, values in runs.items()},
        "added_us": spread(added),
        "parts_us": parts,
    }
    _show(results)
    if arguments.output:
        write(arguments.output, results)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, help="times that each loop runs (7)")
    parser.add_argument("--steps", type=int, help="optimizer steps of each run (2000)")
    parser.add_argument(
        "--quick", action="store_true", help="2 rounds of 200 steps, and no file unless --output names one"
    )
    parser.add_argument("--output", type=Path, help="JSON file to write (benchmarks/results/overhead.json)")
    arguments = parser.parse_args()
    rounds, steps, arguments.calls = (2, 200, 50) if arguments.quick else (7, 2000, 500)
    arguments.rounds, arguments.steps = arguments.rounds or rounds, arguments.steps or steps
    if arguments.steps < WARMUP + 2 * LOG_EVERY:
        parser.error(f"--steps should be {WARMUP + 2 * LOG_EVERY} at least")
    if arguments.output is None and not arguments.quick:
        arguments.output = RESULTS / "overhead.json"
    return arguments


def _plan(folder: str, steps: int) -> TrainPlan:
    values = {
        "experiment": {"name": "overhead", "seed": SEED, "storage": folder},
        "task": {"entry": "small:Small"},
        "training": {
            "steps": steps,
            "batch": {"global": BATCH},
            "optimizer": {"kind": "adamw", "lr": PEAK},
            "schedule": {"kind": "cosine", "warmup_steps": 10},
            "clip_norm": CLIP,
            "log_every_steps": LOG_EVERY,
        },
        "resources": {"workers": "inline"},
        "tracking": {"kind": "off"},
    }
    return plan_training(RunConfig.model_validate(values), "overhead")


def _step_us(loop: Callable[[TrainPlan], None], plan: TrainPlan) -> float:
    """Microseconds per step. Every LOG_EVERY-th step reports, so each place in that cycle has a median, and
    they are averaged.
    """
    small.CALLS.clear()
    loop(plan)
    calls = small.CALLS[WARMUP:]
    steps = [after - before for before, after in itertools.pairwise(calls)]
    return statistics.fmean(statistics.median(steps[place::LOG_EVERY]) for place in range(LOG_EVERY)) * 1e6


def _raystack(plan: TrainPlan) -> None:
    # A run that has checkpoints goes on from them: each is a run of its own.
    run = f"overhead-{time.time_ns()}"
    fresh = replace(plan, run_id=run, paths=run_paths(plan.config.experiment.storage, run))
    heartbeats = HeartbeatSender(
        lambda heartbeat: Orders(), attempt=0, rank=0, world=1, node="here", folder=None
    )
    train(WorkerSpec(fresh, None), WORLD, _ignore, GracefulStop(WORLD), heartbeats)


def _ignore(event: Event) -> None:
    pass


def _by_hand(plan: TrainPlan) -> None:
    torch.manual_seed(SEED)
    task = small.Small()
    model, data = task.model(), task.train_data()
    optimizer = make_optimizer(plan.training.optimizer, model.named_parameters())
    steps = _schedule(plan).steps
    for step, batch in enumerate(_plain_loader(data, steps)):
        loss = task.loss(model, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        for group in optimizer.param_groups:
            group["lr"] = PEAK * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % LOG_EVERY == 0:
            loss.item()


def _plain_loader(data: MapDataset, steps: int) -> DataLoader[Any]:
    order = SampleOrder(len(data), SEED).at(np.arange(steps * BATCH))
    return DataLoader(data, batch_size=BATCH, sampler=order.tolist())  # type: ignore[arg-type]


def _schedule(plan: TrainPlan) -> BatchPlan:
    assert plan.training.steps is not None
    return BatchPlan(plan.batch, plan.training.steps * plan.batch.global_, rank=0)


def _parts(plan: TrainPlan, calls: int) -> dict[str, float]:
    """Microseconds per step of what raystack's loop does beside the step itself."""
    task, data = load(plan.config.task), small.Small().train_data()
    schedule, throughput = (
        _schedule(replace(plan, training=plan.training.model_copy(update={"steps": 10 * calls + 100}))),
        Throughput(WORLD, None),
    )
    ours = training_batches(
        task, data, SampleOrder(small.SAMPLES, SEED), schedule, 0, plan.training.data, SEED, False
    )
    theirs = iter(_plain_loader(data, schedule.steps))
    batch = next(ours)
    losses = [torch.ones(())] * LOG_EVERY

    heartbeats = HeartbeatSender(
        lambda heartbeat: Orders(), attempt=0, rank=0, world=1, node="here", folder=None
    )
    phase, steps = Phases(WORLD, throughput, heartbeats), itertools.count()

    def clock() -> None:
        phase.begin(next(steps), precise=False)
        for name in PHASES:
            with phase(name):
                pass
        throughput.end(BATCH, 0)

    def report() -> None:
        throughput.end(BATCH, 0)
        WORLD.gather([torch.stack(losses).tolist()[-1], math.inf])
        Stepped(1, throughput.report())

    costs = {
        "batches, over a plain DataLoader": _us(lambda: next(ours), calls) - _us(lambda: next(theirs), calls),
        "batch to the device": _us(lambda: to_device(batch, CPU), calls),
        "seed of the step": _us(lambda: WORLD.seed(1), calls),
        "positions of the step": _us(
            lambda: (schedule.micro_batches(1), schedule.consumed(1), schedule.consumed(2)), calls
        ),
        "clock": _us(clock, calls),
        "learning rate": _us(lambda: rate_factor(plan.training.schedule, 100, 200), calls),
        f"report, once in {LOG_EVERY}": _us(report, calls) / LOG_EVERY,
    }
    return dict(sorted(costs.items(), key=lambda item: -item[1]))


def _us(action: Callable[[], object], calls: int) -> float:
    """Microseconds of a call: the median of five means."""
    return statistics.median(timeit.repeat(action, number=calls, repeat=5)) / calls * 1e6


def _show(results: dict[str, Any]) -> None:
    settings = results["settings"]
    steps = [
        (name, [f"{values[key]:.0f}" for key in ("median", "min", "max")])
        for name, values in results["step_us"].items()
    ]
    added = [f"{results['added_us'][key]:.0f}" for key in ("median", "min", "max")]
    title = (
        f"microseconds per step of a tiny model, medians of {settings['rounds']} rounds of"
        f" {settings['steps']} steps"
    )
    show(
        title,
        ("", "us", "least", "most"),
        [*([name, *values] for name, values in steps), ["raystack adds", *added]],
    )
    parts = results["parts_us"]
    rest = results["added_us"]["median"] - sum(parts.values())
    show(
        "of that",
        ("", "us"),
        [*([name, f"{value:.1f}"] for name, value in parts.items()), ["rest", f"{rest:.1f}"]],
    )
    print(f"\nof a step of {STEP_S * 1e3:g} ms: {results['added_us']['median'] / STEP_S / 1e4:.3f} %")


if __name__ == "__main__":
    sys.exit(main())
