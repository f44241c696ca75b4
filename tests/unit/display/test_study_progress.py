"""What a study shows while it runs: a live table on a terminal, lines elsewhere."""

import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

from raystack.display.points import short_names
from raystack.display.progress import shown
from raystack.display.study import shown_study
from raystack.events import (
    Event,
    Started,
    Stepped,
    StudyStarted,
    TrialEnded,
    TrialExploited,
    TrialReported,
    TrialStarted,
    Warned,
)

WIDTH, HEIGHT = 80, 24
STARTED = StudyStarted("digits", 40, 0, (("eval/accuracy", "max"),))


class Screen:
    """What a terminal shows of what was written to it: as much of one as rich needs."""

    def __init__(self, written: str, width: int) -> None:
        self.lines, self._row, self._column = [""], 0, 0
        for code, character in re.findall(r"(\x1b\[[?0-9;]*[a-zA-Z])|(.)", written, re.DOTALL):
            if code.endswith("A"):
                self._row = max(0, self._row - int(code[2:-1] or 1))
            elif code == "\x1b[2K":
                self.lines[self._row] = ""
            elif character == "\r":
                self._column = 0
            elif character == "\n":
                self._down()
            elif character:
                self._put(character, width)

    def _put(self, character: str, width: int) -> None:
        if self._column == width:
            self._down()
        line = self.lines[self._row].ljust(self._column)
        self.lines[self._row] = line[: self._column] + character + line[self._column + 1 :]
        self._column += 1

    def _down(self) -> None:
        self._row, self._column = self._row + 1, 0
        if self._row == len(self.lines):
            self.lines.append("")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "80"), ("LINES", "24")):
        monkeypatch.setenv(name, value)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def point(draw: random.Random) -> dict[str, Any]:
    return {
        "training.optimizer.kind": draw.choice(["adamw", "sgd"]),
        "training.optimizer.lr": 10 ** draw.uniform(-4, -1),
        "training.schedule.lr": draw.random(),
        "training.optimizer.betas": [0.9, 0.999],
        "task.args.a_name_that_is_longer_than_most": "a value that is quite long",
        **{f"task.args.x{index}": draw.random() for index in range(8)},
    }


def running(count: int) -> Iterator[Event]:
    """Events of trials that run, each with two reports."""
    draw = random.Random(0)
    yield STARTED
    for number in range(count):
        yield TrialStarted(number, point(draw), 1)
        for report in (1, 2):
            yield TrialReported(number, report, 20 * report, {"eval/accuracy": 0.4 * report}, 0.4 * report)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(("width", "height"), [(60, 24), (80, 24), (200, 50)])
def test_thirty_running_trials_fit_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", str(height))
    with shown_study() as listen:
        for event in running(30):
            listen(event)
        listen(TrialEnded(29, "finished", 0.8, True, None, 3.0))
        listen(Warned("drawn"))  # what is printed draws the table too
        written = capsys.readouterr().err
    lines = Screen(written, width).lines
    above = lines.index("warning: drawn")
    table = [line for line in lines[above + 1 :] if line]
    assert len(table) < height
    assert table[0].startswith("digits  1/40 trials")
    assert table[1] == "29 running, 1 finished"
    assert table[2].startswith("trial 29 is the best so far: eval/accuracy 0.8")
    head = table[3].split()
    assert head[:2] == ["trial", "optimizer.lr"]
    assert head[-3:] == ["step", "eval/accuracy", "time"]
    assert all(len(line.split()) >= len(head) for line in table[4:-1])  # none goes on in the next line
    assert re.fullmatch(r"and \d+ more", table[-1]) or len(table) == 4 + 29


@pytest.mark.usefixtures("terminal")
def test_what_is_worth_keeping_scrolls_above_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "training.batch: global has to be a multiple of 32 (got {})"
    with shown_study() as listen:
        listen(STARTED)
        for number in range(6):
            listen(TrialStarted(number, {"training.optimizer.lr": 0.1 / (number + 1)}, 1))
        listen(TrialEnded(0, "failed", None, False, "CUDA out of memory", 3.0))
        listen(TrialEnded(1, "infeasible", None, False, reason.format(7), 0.0))
        listen(TrialEnded(2, "infeasible", None, False, reason.format(9), 0.0))
        listen(TrialExploited(3, 4, 60, {"training.optimizer.lr": 0.5}))
        listen(Warned("MLflow does not answer"))
    lines = [line for line in Screen(capsys.readouterr().err, WIDTH).lines if line]
    assert lines == [
        "warning: trial 0 failed: CUDA out of memory",
        "trial 1 is infeasible: training.batch: global has to be a multiple of 32 (got 7)",
        "trial 3 takes over trial 4 of step 60: lr 0.5",
        "warning: MLflow does not answer",
    ]


@pytest.mark.usefixtures("terminal")
def test_a_table_that_changes_its_height_leaves_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(1)
    with shown_study() as listen:
        listen(STARTED)
        for number in range(200):
            listen(TrialStarted(number, {"training.optimizer.lr": draw.random()}, 1))
            listen(Warned(f"line {number}"))
            if draw.random() < 0.9:
                over = draw.randrange(number + 1)
                listen(TrialEnded(over, "pruned", 0.5, False, None, 1.0))
    lines = [line for line in Screen(capsys.readouterr().err, WIDTH).lines if line]
    assert lines == [f"warning: line {number}" for number in range(200)]


@pytest.mark.usefixtures("elsewhere")
def test_lines_of_a_study_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_study() as listen:
        listen(STARTED)
        listen(TrialStarted(0, {"training.optimizer.lr": 0.001234567, "strategy": "ddp"}, 1))
        listen(TrialReported(0, 1, 20, {"eval/accuracy": 0.91}, 0.91))
        listen(TrialEnded(0, "finished", 0.91, True, None, 61.0))
        listen(TrialStarted(1, {"training.optimizer.lr": 7.0, "strategy": "zero1"}, 1))
        listen(TrialEnded(1, "infeasible", None, False, "lr: should be below 1 (got 7)", 0.0))
        listen(TrialExploited(2, 0, 20, {"training.optimizer.lr": 0.5}))
        listen(Warned("MLflow does not answer"))
    assert capsys.readouterr().err.splitlines() == [
        "study digits: 40 trials, for eval/accuracy (max)",
        "trial 0: lr 0.001235, strategy ddp",
        "trial 0 finished after 20 steps and 1 min 01 s, eval/accuracy 0.91",
        "trial 0 is the best so far: eval/accuracy 0.91, lr 0.001235, strategy ddp",
        "trial 1: lr 7, strategy zero1",
        "trial 1 infeasible: lr: should be below 1 (got 7)",
        "trial 2 takes over trial 0 of step 20: lr 0.5",
        "warning: MLflow does not answer",
    ]


@pytest.mark.usefixtures("elsewhere")
def test_of_several_objectives_the_front_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_study() as listen:
        listen(StudyStarted("digits", 4, 1, (("eval/accuracy", "max"), ("eval/size", "min"))))
        listen(TrialStarted(1, {}, 1))
        listen(TrialEnded(1, "finished", 0.5, True, None, 1.0))
    assert capsys.readouterr().err.splitlines() == [
        "study digits: 4 trials, 1 of them over, for eval/accuracy (max), eval/size (min)",
        "trial 1: ",
        "trial 1 finished, eval/accuracy 0.5",
        "trial 1 is on the Pareto front: eval/accuracy 0.5",
    ]


@pytest.mark.usefixtures("terminal")
def test_a_warning_of_a_training_stands_above_its_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with shown() as listen:
        listen(Started(0, 10, 100, 10, 1000, "cpu", 1))
        listen(Stepped(1, {"train/loss": 1.0}))
        listen(Warned("MLflow does not answer"))
    lines = [line for line in Screen(capsys.readouterr().err, WIDTH).lines if line]
    assert lines[-1] == "warning: MLflow does not answer"


def test_names_are_as_short_as_they_can_be() -> None:
    paths = ["training.optimizer.lr", "training.schedule.lr", "task.args.width", "strategy", "lr"]
    assert list(short_names(paths).values()) == ["optimizer.lr", "schedule.lr", "width", "strategy", "lr"]
    assert short_names(["a.b.c", "x.b.c"]) == {"a.b.c": "a.b.c", "x.b.c": "x.b.c"}
