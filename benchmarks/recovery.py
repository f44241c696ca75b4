"""From the SIGKILL of a worker to the next step: raystack beside bare Ray Train, with the same GPT and
checkpoints as often.

Two workers; one, drawn by the round's number, is killed in the middle between two checkpoints. `cold`: soon
after the start; `warm`: later, when raystack keeps a process with everything imported beside each worker.
`any step`: until a step is done at all, which had been done before; `new step`: until one is done that had
not been. The commands take turns, and ratios are taken within a round.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from commands import EXAMPLE, Run, prepare, ray_train, raystack, write_order
from figures import machine, parse, parser, show, spread, write
from running import remove, running, tail, turn, workplace

OURS, BARE = "raystack", "ray-train"
BUDGET = 0.7
"""Of what bare Ray Train takes."""
LONGEST_S = 240.0
POLL_S = 0.02

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Recovery:
    """Seconds since the kill. A step is done when the next one begins."""

    lived_s: float
    """How long the first attempt had trained when it lost a worker."""
    begin_s: float
    """To the beginning of the first step."""
    any_step_s: float
    new_step_s: float
    redone: int
    """Steps that were done a second time."""


@dataclass(frozen=True)
class Page:
    """What one worker has noted: when it began each step, and a number that stands for its samples."""

    pid: int
    times: list[float]
    steps: list[int]


def main() -> int:
    """Measure, print the table, write the JSON."""
    arguments = _parse()
    rounds: list[dict[str, dict[str, Recovery]]] = []
    with workplace() as folder:
        order = write_order(Run(folder, _overrides(folder, arguments)).config(), folder / "order.npy")
        for number in range(arguments.rounds):
            rounds.append({when: {} for when in arguments.when})
            for when in arguments.when:
                for name in turn([OURS, BARE], number):
                    rounds[-1][when][name] = _measure(
                        name, when, folder / f"{number}{when[0]}{name[-1]}", order, number, arguments
                    )
    results = _results(rounds, arguments)
    _show(results)
    if arguments.output:
        write(arguments.output, results)
    return 0


def _parse() -> argparse.Namespace:
    options = parser(__doc__, "recovery", quick="one cold round of short steps")
    options.add_argument("--rounds", type=int, help="times that each command runs (3)")
    options.add_argument("--every", type=int, help="steps between two checkpoints (20)")
    options.add_argument("--width", type=int, help="width of the model (192)")
    options.add_argument("--when", nargs="+", choices=("cold", "warm"), help="kinds to measure (both)")
    options.add_argument(
        "--cold-s", type=float, help="seconds of training after which a cold worker is killed (5)"
    )
    options.add_argument("--warm-s", type=float, help="and a warm one (45)")
    full = {"rounds": 3, "every": 20, "width": 192, "when": ["cold", "warm"], "cold_s": 5.0, "warm_s": 45.0}
    quick = {**full, "rounds": 1, "width": 48, "when": ["cold"], "cold_s": 2.0}
    return parse(options, "recovery", full, quick)


def _overrides(ledger: Path, arguments: argparse.Namespace) -> tuple[str, ...]:
    task = (
        f"{{example: {EXAMPLE}, ledger: {ledger}, context: 128, width: {arguments.width}, depth: 4, heads: 6,"
        " dropout: 0.0}"
    )
    every = f"training.checkpoint.every_steps={arguments.every}"
    return ("task.entry=witnessed:Witnessed", f"task.args={task}", "training.steps=20000", every)


def _measure(
    name: str, when: str, folder: Path, order: Path, number: int, arguments: argparse.Namespace
) -> Recovery:
    ledger = folder / "ledger"
    run = Run(folder, _overrides(ledger, arguments))
    prepare(run, order)
    ledger.mkdir()
    command = (
        raystack(run, folder / "storage", "tracking=off")
        if name == OURS
        else ray_train(run, "on_ray_resuming.py")
    )
    with running(command, folder) as process:
        after_s = arguments.cold_s if when == "cold" else arguments.warm_s
        first = _until(lambda: _due(ledger, arguments.every, after_s), process, folder)
        victim = random.Random(number).choice(first)
        killed = time.time()
        os.kill(victim.pid, signal.SIGKILL)
        recovery = _until(lambda: _recovery(ledger, killed), process, folder)
    print(
        f"round {number + 1}  {when}  {name:<9}  any step {recovery.any_step_s:5.1f} s, new step"
        f" {recovery.new_step_s:5.1f} s",
        flush=True,
    )
    remove(folder)
    return recovery


def _until(look: Callable[[], Seen | None], process: subprocess.Popen[bytes], folder: Path) -> Seen:
    """What `look` returns, once it is something."""
    deadline = time.monotonic() + LONGEST_S
    while (found := look()) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the run did not get there:\n{tail(folder)}")
        time.sleep(POLL_S)
    return found


def _pages(ledger: Path) -> list[Page]:
    pages = []
    for path in sorted(ledger.glob("*.txt")):
        lines = [line.split() for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
        if lines:
            pages.append(
                Page(int(path.stem), [float(line[0]) for line in lines], [int(line[1]) for line in lines])
            )
    return pages


def _due(ledger: Path, every: int, after_s: float) -> list[Page] | None:
    """Both workers' pages, when it is time to kill one: a checkpoint was begun, and the next is half an
    interval away.
    """
    pages = _pages(ledger)
    if len(pages) < 2:
        return None
    begun = max(len(page.times) for page in pages)
    trained = max(page.times[-1] - page.times[0] for page in pages)
    return pages if begun > every and begun % every == every // 2 and trained >= after_s else None


def _recovery(ledger: Path, killed: float) -> Recovery | None:
    """What happened, once the attempt after the kill is far enough."""
    pages = _pages(ledger)
    before = [page for page in pages if page.times[0] < killed]
    begun = max(len(page.times) for page in before)
    # A step is done by all workers when one of them begins the next: they meet to average its gradients.
    done = {step for page in before for step in page.steps[: begun - 1]}
    for page in (page for page in pages if page.times[0] > killed):
        new = next((index for index, step in enumerate(page.steps) if step not in done), None)
        if new is not None and new + 1 < len(page.times):
            times = [at - killed for at in page.times]
            return Recovery(
                killed - min(page.times[0] for page in before), times[0], times[1], times[new + 1], new
            )
    return None


def _results(rounds: list[dict[str, dict[str, Recovery]]], arguments: argparse.Namespace) -> dict[str, Any]:
    rows = {}
    for when in arguments.when:
        for name in (OURS, BARE):
            mine = [asdict(figures[when][name]) for figures in rounds]
            theirs = [asdict(figures[when][BARE]) for figures in rounds]
            ratios = {
                f"{key.removesuffix('_s')}_ratio": spread(
                    [one[key] / other[key] for one, other in zip(mine, theirs, strict=True)]
                )
                for key in ("any_step_s", "new_step_s")
            }
            rows[f"{name} {when}"] = {
                **{key: spread([one[key] for one in mine]) for key in mine[0]},
                **ratios,
            }
    settings = {
        "rounds": arguments.rounds,
        "every": arguments.every,
        "width": arguments.width,
        "workers": 2,
        "threads": 1,
    }
    return {
        "benchmark": "recovery",
        "machine": machine("torch", "ray"),
        "settings": settings,
        "budget": BUDGET,
        "rows": rows,
    }


def _show(results: dict[str, Any]) -> None:
    settings = results["settings"]
    title = (
        f"from SIGKILL to the next step, a checkpoint every {settings['every']} steps, medians of"
        f" {settings['rounds']} rounds"
    )
    beside = f"/ {BARE}"
    columns = (
        "seconds",
        "begins",
        "any step",
        "least",
        "most",
        beside,
        "new step",
        "least",
        "most",
        beside,
        "redone",
        "trained before",
    )
    show(title, columns, [_row(name, row) for name, row in results["rows"].items()])
    for when in ("cold", "warm"):
        if (row := results["rows"].get(f"{OURS} {when}")) is not None:
            ratio = row["new_step_ratio"]["median"]
            print(
                f"budget, {when}: a new step in at most {BUDGET:g} of {BARE}:"
                f" {'kept' if ratio <= BUDGET else 'missed'} ({ratio:.2f})"
            )


def _row(name: str, row: dict[str, Any]) -> list[str]:
    cells = [name, f"{row['begin_s']['median']:.1f}"]
    for key in ("any_step", "new_step"):
        cells += [f"{row[f'{key}_s'][which]:.1f}" for which in ("median", "min", "max")]
        cells.append(f"{row[f'{key}_ratio']['median']:.2f}")
    return [*cells, f"{row['redone']['median']:.0f}", f"{row['lived_s']['median']:.0f}"]


if __name__ == "__main__":
    sys.exit(main())
