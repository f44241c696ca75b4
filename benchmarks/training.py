"""One GPT of 1.85 million parameters, trained by raystack and by what one would use instead, on the same samples.

Two workers of one thread, gloo, fp32. Every run is a command of its own, as typed in a shell. A machine drifts over
minutes, so the commands take turns: each round runs all of them, and the ratio to torchrun is taken within the round.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from figures import RESULTS, machine, show, spread, write

from raystack import config
from raystack.config.training import AdamW
from raystack.task import load
from raystack.training.data import SampleOrder

HERE = Path(__file__).resolve().parent
GPT = HERE / "gpt"
EXAMPLE = HERE.parent / "examples" / "02_language_model"
WORKERS = 2
PYTHON = sys.executable
BASELINE = "torchrun"

Command = Callable[["Run"], list[str]]


@dataclass(frozen=True)
class Run:
    """One command: its folder, the settings file of the loops written by hand, and the length of the run."""

    folder: Path
    store: Path
    """Kept over the rounds, so that only the first pays for creating an MLflow store."""
    settings: Path
    record: Path
    steps: int


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


def main() -> int:
    """Measure, print the table, write the JSON."""
    arguments = _parse()
    chosen = [name for name in COMMANDS if not arguments.only or name in arguments.only]
    with _workplace() as folder:
        order = _write_order(folder, arguments.steps)
        rounds = []
        for number in range(arguments.rounds):
            turn = number % len(chosen)
            order_of_round = chosen[turn:] + chosen[:turn]
            done = {name: _measure(name, folder, order, number, arguments) for name in order_of_round}
            rounds.append({name: done[name] for name in chosen})
    _same_losses(rounds)
    results = _results(rounds, arguments)
    _show(results)
    if arguments.output:
        write(arguments.output, results)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="times that each command runs (5)")
    parser.add_argument("--steps", type=int, help="optimizer steps of each run (60)")
    parser.add_argument("--warmup", type=int, help="first steps that do not count (10)")
    parser.add_argument("--only", nargs="+", choices=list(COMMANDS), default=[], help="run these only")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds after which a run is ended (300)")
    parser.add_argument("--quick", action="store_true", help="1 round of 8 steps, 2 of them warm-up, and no file unless --output names one")
    parser.add_argument("--output", type=Path, help="JSON file to write (benchmarks/results/training.json)")
    arguments = parser.parse_args()
    rounds, steps, warmup = (1, 8, 2) if arguments.quick else (5, 60, 10)
    arguments.rounds, arguments.steps = arguments.rounds or rounds, arguments.steps or steps
    arguments.warmup = warmup if arguments.warmup is None else arguments.warmup
    if arguments.steps < arguments.warmup + 3:
        parser.error("--steps should be --warmup + 3 at least: the last step is not timed")
    if arguments.output is None and not arguments.quick:
        arguments.output = RESULTS / "training.json"
    return arguments


@contextmanager
def _workplace() -> Iterator[Path]:
    """A folder that is gone after the block. Short, because Ray puts sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder that Ray's processes may still be writing to: they end a moment after the command."""
    deadline = time.monotonic() + 10
    while folder.is_dir() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1)


def _asked(steps: int, record: Path) -> config.RunConfig:
    return config.load(GPT / "config.yaml", [f"training.steps={steps}", *_task_arguments(steps, record)])


def _task_arguments(steps: int, record: Path) -> list[str]:
    return [f"task.args.example={EXAMPLE}", f"task.args.record={record}", f"task.args.steps={steps}"]


def _write_order(folder: Path, steps: int) -> Path:
    """The samples of every step and worker, int64 [steps, workers, micro], as raystack will draw them."""
    asked = _asked(steps, folder / "unused.json")
    size = asked.training.batch.global_
    assert size is not None
    order = SampleOrder(len(load(asked.task).train_data()), asked.experiment.seed).at(np.arange(steps * size))
    path = folder / "order.npy"
    np.save(path, order.reshape(steps, WORKERS, size // WORKERS))
    return path


def _measure(name: str, folder: Path, order: Path, number: int, arguments: argparse.Namespace) -> Figures:
    # A short name: Ray's dashboard puts sockets below it, and the path of a socket may have 107 characters.
    run = _prepare(folder / f"{number}-{list(COMMANDS).index(name)}", folder / "store", order, arguments.steps)
    started = time.time()
    _execute(COMMANDS[name](run), run.folder, arguments.timeout)
    ended = time.time()
    record = json.loads(run.record.read_text(encoding="utf-8"))
    calls = record["calls"]
    assert len(calls) == arguments.steps
    figures = Figures(
        step_s=statistics.median(
            after - before for before, after in zip(calls[arguments.warmup :], calls[arguments.warmup + 1 :], strict=False)
        ),
        first_step_s=calls[1] + record["epoch"] - started,
        exit_s=ended - started,
        losses=tuple(record["losses"]),
    )
    print(
        f"round {number + 1}  {name:<{_WIDTH}}  {figures.step_s * 1e3:7.1f} ms/step, first step after {figures.first_step_s:5.1f} s",
        flush=True,
    )
    _remove(run.folder)
    return figures


def _prepare(folder: Path, store: Path, order: Path, steps: int) -> Run:
    folder.mkdir()
    run = Run(folder, store, folder / "settings.json", folder / "record.json", steps)
    asked = _asked(steps, run.record)
    training, optimizer = asked.training, asked.training.optimizer
    assert isinstance(optimizer, AdamW)
    settings = {
        "task": dict(asked.task.args),
        "seed": asked.experiment.seed,
        "steps": steps,
        "workers": WORKERS,
        "order": str(order),
        "state": str(folder / "state.pt"),
        "storage": str(folder / "storage"),
        **optimizer.model_dump(include={"lr", "betas", "eps", "weight_decay"}),
        **training.schedule.model_dump(include={"warmup_steps", "floor"}),
        "clip_norm": training.clip_norm,
    }
    run.settings.write_text(json.dumps(settings), encoding="utf-8")
    return run


def _execute(command: list[str], folder: Path, timeout_s: float) -> None:
    """Run `command` in a session of its own; what is left of it after `timeout_s` is ended."""
    output = folder / "output.txt"
    with output.open("w") as file:
        process = subprocess.Popen(command, cwd=HERE.parent, env=_environment(folder), stdout=file, stderr=file, start_new_session=True)
        try:
            status: int | None = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
    if status != 0:
        tail = "\n".join(output.read_text(errors="replace").splitlines()[-20:])
        how = f"did not end within {timeout_s:g} s" if status is None else f"ended with status {status}"
        raise SystemExit(f"{' '.join(command)}\n{how}:\n{tail}")


def _environment(folder: Path) -> dict[str, str]:
    """Everything that a run writes goes below its folder; no cluster that is already up is joined."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "RAYSTACK_", "MLFLOW_"))}
    paths = [str(HERE.parent), *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(paths), "ACCELERATE_USE_CPU": "true"}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process group of a command that is still running: politely, then not."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, sign)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue


def _raystack(run: Run, tracking: str = "off", *further: str) -> list[str]:
    storage = run.store if tracking == "local" else run.folder / "storage"
    choices = [
        f"tracking={tracking}",
        f"experiment.storage={storage}",
        f"training.steps={run.steps}",
        *_task_arguments(run.steps, run.record),
        *further,
    ]
    return [PYTHON, "-m", "raystack.train", str(GPT / "config.yaml"), *choices]


def _torchrun(run: Run) -> list[str]:
    return [
        PYTHON,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(WORKERS),
        str(GPT / "by_hand.py"),
        str(run.settings),
    ]


def _ray_train(run: Run) -> list[str]:
    return [PYTHON, str(GPT / "on_ray.py"), str(run.settings)]


def _accelerate(run: Run) -> list[str]:
    # `accelerate launch --cpu` starts one process unless there is an MPI; --multi_gpu is its name for starting several, and
    # ACCELERATE_USE_CPU keeps them on the CPU.
    options = ["--multi_gpu", "--num_processes", str(WORKERS), "--num_machines", "1", "--main_process_port", "0"]
    plain = ["--mixed_precision", "no", "--dynamo_backend", "no"]
    return [PYTHON, "-m", "accelerate.commands.launch", *options, *plain, str(GPT / "on_accelerate.py"), str(run.settings)]


COMMANDS: dict[str, Command] = {
    "raystack": _raystack,
    BASELINE: _torchrun,
    "ray-train": _ray_train,
    "accelerate": _accelerate,
    "raystack+dashboard": lambda run: _raystack(run, "off", "target.dashboard=true"),
    "raystack+mlflow": lambda run: _raystack(run, "local"),
}
_WIDTH = max(len(name) for name in COMMANDS)


def _same_losses(rounds: list[dict[str, Figures]]) -> None:
    """All of them did the same work, or nothing is compared."""
    expected = next(iter(rounds[0].values())).losses
    for figures in rounds:
        for name, one in figures.items():
            if not np.allclose(one.losses, expected, rtol=1e-3):
                raise SystemExit(f"{name} has other losses than the rest: {one.losses[-1]} and {expected[-1]} at the end")


def _results(rounds: list[dict[str, Figures]], arguments: argparse.Namespace) -> dict[str, Any]:
    asked = _asked(arguments.steps, Path("unused"))
    size, context = asked.training.batch.global_, asked.task.args["context"]
    assert size is not None
    rows = {}
    for name in rounds[0]:
        mine = [figures[name] for figures in rounds]
        step = spread([one.step_s * 1e3 for one in mine])
        rows[name] = {
            "step_ms": step,
            "tokens_per_s": size * context / step["median"] * 1e3,
            "first_step_s": spread([one.first_step_s for one in mine]),
            "exit_s": spread([one.exit_s for one in mine]),
            "step_ratio": spread([one.step_s / figures[BASELINE].step_s for one, figures in zip(mine, rounds, strict=True)])
            if BASELINE in rounds[0]
            else None,
        }
    return {
        "benchmark": "training",
        "machine": machine("torch", "ray", "accelerate", "mlflow"),
        "settings": {
            "rounds": arguments.rounds,
            "steps": arguments.steps,
            "warmup": arguments.warmup,
            "workers": WORKERS,
            "threads": 1,
            "global_batch": size,
            "context": context,
        },
        "final_loss": next(iter(rounds[0].values())).losses[-1],
        "rows": rows,
    }


def _show(results: dict[str, Any]) -> None:
    settings = results["settings"]
    size = f"{settings['global_batch']} x {settings['context']} tokens"
    title = f"{settings['workers']} workers, batch {size}, medians of {settings['rounds']} rounds of {settings['steps']} steps"
    columns = ("", "ms/step", "least", "most", f"/ {BASELINE}", "least", "most", "tokens/s", "first step, s", "to exit, s")
    show(title, columns, [_row(name, row) for name, row in results["rows"].items()])


def _row(name: str, row: dict[str, Any]) -> list[str]:
    step, ratio = row["step_ms"], row["step_ratio"]
    ratios = [f"{ratio[key]:.3f}" for key in ("median", "min", "max")] if ratio else ["-"] * 3
    times = [f"{row[key]['median']:.1f}" for key in ("first_step_s", "exit_s")]
    return [name, *(f"{step[key]:.1f}" for key in ("median", "min", "max")), *ratios, f"{row['tokens_per_s']:,.0f}", *times]


if __name__ == "__main__":
    sys.exit(main())
