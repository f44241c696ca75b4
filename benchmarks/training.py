"""One GPT of 1.85 million parameters, trained by raystack and by what one would use instead, on the same
samples.

Two workers of one thread, gloo, fp32. Every run is a command of its own, as typed in a shell. A machine
drifts over minutes, so the commands take turns: each round runs all of them, and the ratio to the same
strategy under torchrun is taken within the round. With --strategies, raystack and torchrun only, with each of
them. With --device cuda, one worker on a GPU: `--device cuda --model gpt2 --precision bf16 --compile` is
GPT-2 with 124 million parameters.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from commands import (
    ACCELERATE,
    EXAMPLE,
    Run,
    accelerate,
    prepare,
    ray_train,
    raystack,
    size_of,
    torchrun,
    write_order,
)
from figures import machine, parse, parser, show, spread, write
from running import execute, remove, turn, workplace

from raystack.plan.accelerators import peak_flops

BASELINE = "torchrun"
LOG_EVERY = 10
"""Steps between two reports, in all loops."""
TOLERANCE = {"fp32": 1e-3, "bf16": 2e-2}
"""Relative, between the losses of all commands."""
MODELS = {
    "gpt": ("timed:Timed", "{context: 128, width: 192, depth: 4, heads: 6, dropout: 0.0}", 32),
    "gpt2": (
        "timed:Wide",
        "{context: 1024, width: 768, depth: 12, heads: 12, dropout: 0.0, vocabulary: 50257}",
        16,
    ),
    "gpt2 in small": (
        "timed:Wide",
        "{context: 64, width: 64, depth: 2, heads: 2, dropout: 0.0, vocabulary: 512}",
        8,
    ),
}
"""The task, its arguments and the global batch."""


@dataclass(frozen=True)
class Row:
    """What one line of the table runs."""

    command: Callable[[Run, Path], list[str]]
    """Of a run, and of a storage that is kept over the rounds: only the first pays for creating an MLflow
    store.
    """
    strategy: str = "ddp"
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def baseline(self) -> str:
        """The row that this one is compared with."""
        return _named(BASELINE, self.strategy)


@dataclass(frozen=True)
class Figures:
    """What one command did."""

    step_s: float
    """Median over the steps after the warm-up."""
    first_step_s: float
    """From the start of the command to the end of the first optimizer step."""
    exit_s: float
    """From the start of the command to its end."""
    losses: tuple[float, ...]
    parameters: int
    device: str


def _named(name: str, strategy: str) -> str:
    return name if strategy == "ddp" else f"{name} {strategy}"


def _ours(*further: str) -> Callable[[Run, Path], list[str]]:
    return lambda run, store: raystack(run, run.folder / "storage", "tracking=off", *further)


STRATEGIES = ("ddp", "fsdp", "zero1", "zero2", "zero3")
ROWS: dict[str, Row] = {
    "raystack": Row(_ours()),
    "raystack processes2": Row(_ours("resources=processes2")),
    BASELINE: Row(lambda run, store: torchrun(run)),
    "ray-train": Row(lambda run, store: ray_train(run)),
    "accelerate": Row(lambda run, store: accelerate(run), variables=tuple(ACCELERATE.items())),
    "raystack+dashboard": Row(_ours("target.dashboard=true")),
    "raystack+mlflow": Row(lambda run, store: raystack(run, store, "tracking=local")),
    **{_named("raystack", strategy): Row(_ours(), strategy) for strategy in STRATEGIES[1:]},
    **{
        _named("raystack processes2", strategy): Row(_ours("resources=processes2"), strategy)
        for strategy in STRATEGIES[1:]
    },
    **{
        _named(BASELINE, strategy): Row(lambda run, store: torchrun(run), strategy)
        for strategy in STRATEGIES[1:]
    },
}


def main() -> int:
    """Measure, print the table, write the JSON."""
    arguments = _parse()
    rounds = []
    with workplace() as folder:
        order = write_order(_run(folder, "ddp", arguments).config(), folder / "order.npy")
        for number in range(arguments.rounds):
            done = {
                name: _measure(name, folder, order, number, arguments)
                for name in turn(arguments.only, number)
            }
            rounds.append({name: done[name] for name in arguments.only})
    _same_losses(rounds, TOLERANCE[arguments.precision])
    results = _results(rounds, arguments)
    _show(results)
    if arguments.output:
        write(arguments.output, results)
    return 0


def _parse() -> argparse.Namespace:
    options = parser(__doc__, "training", quick="1 round of 8 steps, 2 of them warm-up, of a GPT-2 in small")
    options.add_argument("--rounds", type=int, help="times that each command runs (3)")
    options.add_argument("--steps", type=int, help="optimizer steps of each run (60)")
    options.add_argument("--warmup", type=int, help="first steps that do not count (10)")
    options.add_argument(
        "--strategies",
        nargs="+",
        choices=STRATEGIES,
        default=[],
        help="raystack, on Ray and in processes, and torchrun with each of these",
    )
    options.add_argument("--only", nargs="+", choices=list(ROWS), help="run these only")
    options.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda: one worker on one GPU (cpu)"
    )
    options.add_argument(
        "--model", choices=("gpt", "gpt2"), default="gpt", help="1.85 or 124 million parameters (gpt)"
    )
    options.add_argument(
        "--precision", choices=tuple(TOLERANCE), default="fp32", help="of the forward pass (fp32)"
    )
    options.add_argument("--compile", action="store_true", help="with torch.compile")
    options.add_argument(
        "--timeout", type=float, default=300.0, help="seconds after which a run is ended (300)"
    )
    full, quick = {"rounds": 3, "steps": 60, "warmup": 10}, {"rounds": 1, "steps": 8, "warmup": 2}
    arguments = parse(options, "training", full, quick)
    arguments.only = arguments.only or _chosen(arguments)
    if arguments.quick and arguments.model == "gpt2":
        arguments.model = "gpt2 in small"
    elsewhere = {ROWS[name].strategy for name in arguments.only} != {"ddp"} or "accelerate" in arguments.only
    if elsewhere and (arguments.precision != "fp32" or arguments.compile or arguments.device != "cpu"):
        options.error("--precision, --compile and --device are for ddp, under raystack and torchrun")
    window = _window(arguments)
    if arguments.steps < arguments.warmup + 2 * window + 1:
        options.error(f"--steps should be --warmup + {2 * window + 1} at least: the last step is not timed")
    return arguments


def _chosen(arguments: argparse.Namespace) -> list[str]:
    if arguments.strategies:
        return [
            _named(name, strategy)
            for strategy in arguments.strategies
            for name in ("raystack", "raystack processes2", BASELINE)
        ]
    if arguments.device == "cpu" and arguments.precision == "fp32" and not arguments.compile:
        return [name for name, row in ROWS.items() if row.strategy == "ddp"]
    return ["raystack", BASELINE]


def _run(folder: Path, strategy: str, arguments: argparse.Namespace) -> Run:
    entry, task, batch = MODELS[arguments.model]
    return Run(
        folder,
        (
            f"strategy={strategy}",
            f"task.entry={entry}",
            (
                f"task.args={{example: {EXAMPLE}, record: {folder / 'record.json'}, steps: {arguments.steps},"
                f" {task[1:]}"
            ),
            f"training.batch.global={batch}",
            f"training.steps={arguments.steps}",
            f"training.precision={arguments.precision}",
            f"training.compile={str(arguments.compile).lower()}",
            *(("resources=inline", "resources.gpus_per_worker=1") if arguments.device == "cuda" else ()),
        ),
    )


def _window(arguments: argparse.Namespace) -> int:
    """Steps that are timed together. On a GPU the loss is called before the work of the last steps is done;
    the loops meet the device where they report.
    """
    return LOG_EVERY if arguments.device == "cuda" else 1


def _measure(name: str, folder: Path, order: Path, number: int, arguments: argparse.Namespace) -> Figures:
    row = ROWS[name]
    # A short name: Ray's dashboard puts sockets below it, and the path of a socket may have 107 characters.
    run = _run(folder / f"{number}-{list(ROWS).index(name)}", row.strategy, arguments)
    prepare(run, order)
    started = time.time()
    execute(row.command(run, folder / "store"), run.folder, arguments.timeout, dict(row.variables))
    ended = time.time()
    record = json.loads((run.folder / "record.json").read_text(encoding="utf-8"))
    calls, window = record["calls"], _window(arguments)
    assert len(calls) == arguments.steps
    figures = Figures(
        step_s=statistics.median(
            after - before for before, after in pairwise(calls[arguments.warmup :: window])
        )
        / window,
        first_step_s=calls[1] + record["epoch"] - started,
        exit_s=ended - started,
        losses=tuple(record["losses"]),
        parameters=record["parameters"],
        device=record["device"],
    )
    step, first = f"{figures.step_s * 1e3:7.1f} ms/step", f"first step after {figures.first_step_s:5.1f} s"
    print(f"round {number + 1}  {name:<18}  {step}, {first}", flush=True)
    remove(run.folder)
    return figures


def _same_losses(rounds: list[dict[str, Figures]], tolerance: float) -> None:
    """All of them did the same work, or nothing is compared."""
    expected = next(iter(rounds[0].values())).losses
    for figures in rounds:
        for name, one in figures.items():
            if not np.allclose(one.losses, expected, rtol=tolerance):
                raise SystemExit(
                    f"{name} has other losses than the rest: {one.losses[-1]} and {expected[-1]} at the end"
                )


def _results(rounds: list[dict[str, Figures]], arguments: argparse.Namespace) -> dict[str, Any]:
    config = _run(Path("unused"), "ddp", arguments).config()
    (size, workers), shape = size_of(config), config.task.args
    any_of = next(iter(rounds[0].values()))
    # Chowdhery et al. 2022, "PaLM", appendix B.
    flops_per_token = 6 * any_of.parameters + 12 * shape["depth"] * shape["width"] * shape["context"]
    peak = peak_flops(any_of.device, arguments.precision) if any_of.device else None
    rows = {}
    for name in arguments.only:
        mine, baseline = [figures[name] for figures in rounds], ROWS[name].baseline
        step = spread([one.step_s * 1e3 for one in mine])
        tokens_per_s = size * shape["context"] / step["median"] * 1e3
        rows[name] = {
            "step_ms": step,
            "tokens_per_s": tokens_per_s,
            "mfu": tokens_per_s * flops_per_token / peak if peak else None,
            "first_step_s": spread([one.first_step_s for one in mine]),
            "exit_s": spread([one.exit_s for one in mine]),
            "step_ratio": (
                spread(
                    [one.step_s / figures[baseline].step_s for one, figures in zip(mine, rounds, strict=True)]
                )
                if baseline in arguments.only
                else None
            ),
        }
    return {
        "benchmark": "training",
        "machine": machine("torch", "ray", "accelerate", "deepspeed", "mlflow"),
        "settings": {
            "rounds": arguments.rounds,
            "steps": arguments.steps,
            "warmup": arguments.warmup,
            "workers": workers,
            "threads": 1,
            "global_batch": size,
            "context": shape["context"],
            "parameters": any_of.parameters,
            "device": any_of.device or "cpu",
            "precision": arguments.precision,
            "compile": arguments.compile,
        },
        "final_loss": any_of.losses[-1],
        "rows": rows,
    }


def _show(results: dict[str, Any]) -> None:
    settings = results["settings"]
    model = f"{settings['parameters'] / 1e6:.3g} M parameters in {settings['precision']}"
    work = f"{model}, {settings['global_batch']} x {settings['context']} tokens"
    title = (
        f"{settings['workers']} x {settings['device']}, {work}, medians of {settings['rounds']} rounds of"
        f" {settings['steps']} steps"
    )
    columns = (
        "",
        "ms/step",
        "least",
        "most",
        f"/ {BASELINE}",
        "least",
        "most",
        "tokens/s",
        "MFU",
        "first step, s",
        "to exit, s",
    )
    show(title, columns, [_row(name, row) for name, row in results["rows"].items()])


def _row(name: str, row: dict[str, Any]) -> list[str]:
    step, ratio = row["step_ms"], row["step_ratio"]
    ratios = [f"{ratio[key]:.3f}" for key in ("median", "min", "max")] if ratio else ["-"] * 3
    speed = [f"{row['tokens_per_s']:,.0f}", f"{row['mfu']:.3f}" if row["mfu"] else "-"]
    times = [f"{row[key]['median']:.1f}" for key in ("first_step_s", "exit_s")]
    return [name, *(f"{step[key]:.1f}" for key in ("median", "min", "max")), *ratios, *speed, *times]


if __name__ == "__main__":
    sys.exit(main())
