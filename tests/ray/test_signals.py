"""SIGTERM and SIGINT at any moment of a run: its status, one line, whole checkpoints, and nothing left."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import uuid4

import pytest
from driver import TINY
from processes import LONGEST_S, Command

from raystack.checkpoint.report import verify_checkpoints

pytestmark = [pytest.mark.ray, pytest.mark.slow]
Place = Literal["ray", "inline"]
TRAINING = r"^step \d+/"
PYTHON_S = 1.0
"""Until then Python may be starting, and the signal still does what it does by default."""
AGAIN_S = 0.8
"""Seconds between two signals that are two requests."""
KINDS = [
    f"{name} {times} {whom}"
    for name in ("TERM", "INT")
    for times in ("once", "twice")
    for whom in ("driver", "group", "all")
]
MOMENTS = [round(0.05 + 0.05 * n + 0.0075 * n * n, 2) for n in range(40)]
"""Seconds from the shell on: Python, imports, Ray's start, the workers' and the training."""


@dataclass(frozen=True)
class Ended:
    """How a run ended that got signals."""

    status: int
    output: str
    left: list[str]
    damaged: list[str]
    """What is wrong with its checkpoints."""


def ended(
    storage: Path, place: Place, kind: str, moment: Callable[[Command, str], None], *more: str
) -> Ended:
    """How a run ends that gets signals of this kind at this moment."""
    name, times, whom = kind.split()
    number = {"TERM": signal.SIGTERM, "INT": signal.SIGINT}[name]
    mark = f"RAYSTACK_TEST_MARK={uuid4().hex}"
    key, _, value = mark.partition("=")
    environment = {**os.environ, "RAYSTACK_STORAGE": str(storage), key: value}
    overrides = ["resources=cpu2" if place == "ray" else "resources=inline", "training.epochs=5000"]
    overrides += ["task.args.step_s=0.02", "training.checkpoint.every_steps=20", *more]
    words = [sys.executable, "-m", "raystack.train", str(TINY), *overrides]
    run = Command(words, environment)
    moment(run, mark)
    for wait_s in (0.0, AGAIN_S)[: 1 + (times == "twice")]:
        time.sleep(wait_s)
        if run.process.poll() is None:
            send(run.process.pid, number, whom, mark)
    status = run.wait()
    deadline = time.monotonic() + 10
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return Ended(status, run.output, list(left.values()), damage(storage))


def send(driver: int, number: signal.Signals, whom: str, mark: str) -> None:
    """To the driver, to its process group, or to all that it has started too, as systemd and Slurm do."""
    if whom == "group":
        os.killpg(driver, number)
        return
    for process in [driver, *(marked(mark).keys() - {driver} if whom == "all" else ())]:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def marked(mark: str) -> dict[int, str]:
    """The command lines of running processes with this in their environment, by process id."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it has ended, or is another user's
    return {process: words for process, words in found.items() if words}  # a zombie has none


def damage(storage: Path) -> list[str]:
    return [
        str(problem)
        for run in (storage / "runs").glob("*")
        if list(run.glob("checkpoints/step-*"))
        for report in verify_checkpoints(str(run), lambda size: nullcontext(lambda read: None))
        for problem in report.problems
    ]


def check(end: Ended, *, statuses: tuple[int, ...] = (75, 130)) -> None:
    assert end.status in statuses, end
    (line,) = [line for line in end.output.splitlines() if re.match("interrupted|paused: ", line)]
    assert line.startswith("paused: ") == (end.status == 75), end
    assert "Traceback" not in end.output, end
    assert (end.left, end.damaged) == ([], []), end


def when_it_says(pattern: str) -> Callable[[Command, str], None]:
    def moment(run: Command, mark: str) -> None:
        run.until(pattern)

    return moment


def when_there_is(words: str) -> Callable[[Command, str], None]:
    def moment(run: Command, mark: str) -> None:
        deadline = time.monotonic() + LONGEST_S
        while not any(words in line for line in marked(mark).values()):
            assert run.process.poll() is None, run.output
            assert time.monotonic() < deadline, run.output
            time.sleep(0.01)

    return moment


@pytest.mark.parametrize("whom", ["group", "all"])
@pytest.mark.parametrize("place", ["ray", "inline"])
def test_whoever_else_gets_sigterm_a_training_ends_with_its_checkpoint(
    place: Place, whom: str, tmp_path: Path
) -> None:
    # With loader processes, which are in the group of a run in this process.
    end = ended(tmp_path, place, f"TERM once {whom}", when_it_says(TRAINING), "training.data.loaders=1")
    check(end, statuses=(75,))
    assert re.search(r"paused: step \d+: the run stopped as it was told to, with the checkpoint", end.output)


@pytest.mark.parametrize("whom", ["driver", "all"])
@pytest.mark.parametrize("process", ["gcs_server", "raylet", "ray::"])
def test_a_signal_while_ray_starts_ends_the_command_with_a_line(
    process: str, whom: str, tmp_path: Path
) -> None:
    check(ended(tmp_path, "ray", f"TERM once {whom}", when_there_is(process)))


@pytest.mark.parametrize("kind", ["TERM twice group", "INT twice driver"])
def test_a_second_signal_ends_what_the_first_has_not_yet_ended(kind: str, tmp_path: Path) -> None:
    check(ended(tmp_path, "ray", kind, when_there_is("raylet")), statuses=(130,))


def test_signals_between_the_first_import_and_the_verb_have_a_line(tmp_path: Path) -> None:
    def imported(run: Command, mark: str) -> None:
        maps = Path("/proc", str(run.process.pid), "maps")
        while "pydantic_core" not in maps.read_text():
            assert run.process.poll() is None
            time.sleep(0.002)

    check(ended(tmp_path, "inline", "INT once driver", imported), statuses=(130,))


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["ray", "inline"])
@pytest.mark.parametrize("seconds", MOMENTS)
def test_signals_at_a_moment(seconds: float, place: Place, kind: str, tmp_path: Path) -> None:
    end = ended(tmp_path, place, kind, lambda run, mark: time.sleep(seconds))
    if seconds < PYTHON_S and (end.status < 0 or "Traceback" in end.output):
        # Python itself was starting: by default a signal ends it.
        assert (end.left, end.damaged) == ([], []), end
    else:
        check(end)
