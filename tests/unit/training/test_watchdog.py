"""What the watchdog promises: it names who did not arrive and who is slow, and it is quiet where nothing is
wrong.
"""

import os
import re
import signal
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
import watched
from packaging.requirements import Requirement

from raystack.config.faults import Watchdog
from raystack.events import Alarm, Slow
from raystack.training.watchdog.hang import (
    COLLECT_S,
    HangDetector,
    Heartbeat,
    Orders,
    Pace,
    Stacks,
    StepPhase,
)
from raystack.training.watchdog.heartbeat import ABORTED, HeartbeatSender

CONFIG = Watchdog(multiple=10, min_s=60, startup_s=1800, slow=1.5)
FAST = Pace(steps=50, step_s=0.1, own_s=0.05, most="forward")


def heartbeat(rank: int, phase: StepPhase = "forward", seconds: float = 0.0, **other: Any) -> Heartbeat:
    plain = Heartbeat(0, rank, 2, "a", 100 + rank, 6, phase, seconds, 20, phase == "wait", FAST)
    return replace(plain, **other)


def tell(watch: HangDetector, now: float, *beats: Heartbeat) -> Alarm | None:
    """Beats that all come at `now`, from workers that send their stacks when they are asked for them."""
    for one in beats:
        watch.observe(one, now)
    alarm = watch.check(now)
    for one in beats:
        if watch.observe(one, now).dump:
            watch.observe(
                replace(one, stacks=Stacks(f"stack of {one.rank}", f"task.py:8{one.rank} in loss")), now
            )
    return alarm or watch.check(now)


def test_the_worker_that_hangs_is_named_with_its_line_and_every_stack() -> None:
    watch = HangDetector(CONFIG)
    assert tell(watch, 0, heartbeat(0, "wait", 59), heartbeat(1, "forward", 59)) is None
    alarm = tell(watch, 10, heartbeat(0, "wait", 69, collectives=21), heartbeat(1, "forward", 69))
    assert alarm is not None
    assert alarm.late == (1,)
    assert alarm.stacks == {0: "stack of 0", 1: "stack of 1"}
    assert (
        alarm.text
        == "rank 1 (pid 101 on node a) is in forward of step 6 for 69 s at task.py:81 in loss; the other"
        " worker waits for it (limit 60 s, a step takes 0.1 s)"
    )
    assert tell(watch, 11, heartbeat(0, "wait", 70, collectives=21), heartbeat(1, "forward", 70)) is None, (
        "told once"
    )


def test_the_limit_is_a_multiple_of_the_median_step() -> None:
    slow = replace(FAST, step_s=30.0)
    watch = HangDetector(CONFIG)
    assert tell(watch, 0, heartbeat(0, "wait", 299, pace=slow), heartbeat(1, "data", 299, pace=slow)) is None
    assert (
        tell(watch, 2, heartbeat(0, "wait", 301, pace=slow), heartbeat(1, "data", 301, pace=slow)) is not None
    )


@pytest.mark.parametrize(
    ("stuck", "late"),
    [
        ((heartbeat(0, "wait"), heartbeat(1, "data")), (1,)),
        ((heartbeat(0, "data"), heartbeat(1, "forward", waiting=True)), (0,)),
        (
            (heartbeat(0, "forward", waiting=True, collectives=21), heartbeat(1, "forward", waiting=True)),
            (1,),
        ),
        ((heartbeat(0, "idle", step=5, collectives=20), heartbeat(1, "data", collectives=21)), (0,)),
        ((heartbeat(0, "data", collectives=None), heartbeat(1, "forward", collectives=None)), (0,)),
        ((heartbeat(0, "over"), heartbeat(1, "wait")), (0,)),
        ((heartbeat(0, "backward"), heartbeat(1, "backward")), ()),
        ((heartbeat(0, "data", world=1),), (0,)),
    ],
    ids=[
        "data",
        "blocked in forward",
        "fewer collectives",
        "step before",
        "no counts",
        "left",
        "alike",
        "alone",
    ],
)
def test_who_did_not_arrive(stuck: tuple[Heartbeat, ...], late: tuple[int, ...]) -> None:
    alarm = tell(HangDetector(CONFIG), 0, *(replace(one, seconds=75.0) for one in stuck))
    assert alarm is not None
    assert alarm.late == late


def test_a_worker_that_has_left_has_time_to_say_why_and_the_limit_told_is_the_one_that_was_used() -> None:
    watch = HangDetector(Watchdog(multiple=10, min_s=3, startup_s=1800))
    assert tell(watch, 0, heartbeat(0, "wait", 10), heartbeat(1, "over", 0)) is None
    assert tell(watch, 25, heartbeat(0, "wait", 35)) is None
    alarm = tell(watch, 31, heartbeat(0, "wait", 41))
    assert alarm is not None
    assert alarm.text.startswith("rank 1 (pid 101 on node a) has left the training; the other worker waits")
    assert "(limit 30 s, " in alarm.text


def test_an_attempt_that_has_ended_is_judged_no_more() -> None:
    watch = HangDetector(CONFIG)
    stuck = (heartbeat(0, "wait", 50), heartbeat(1, "data", 50))
    assert tell(watch, 0, *stuck) is None
    watch.end()
    assert tell(watch, 100) is None, "their last heartbeats count no more"
    assert tell(watch, 200, *(replace(one, seconds=250.0) for one in stuck)) is None, "nor do late ones"
    assert tell(watch, 201, *(replace(one, attempt=1, seconds=75.0) for one in stuck)) is not None


def test_of_many_those_are_named_that_hold_up_the_others_and_not_those_that_wait_beside_them() -> None:
    ranks = [
        heartbeat(rank, "backward", 75, world=8, waiting=True, collectives=22 if rank < 3 else 21)
        for rank in range(8)
    ]
    ranks[5] = replace(ranks[5], waiting=False, phase="forward")
    alarm = tell(HangDetector(CONFIG), 0, *ranks)
    assert alarm is not None
    assert alarm.late == (5,)
    assert "the other 7 workers wait" in alarm.text


def test_a_collective_that_one_worker_left_out_is_told_as_that() -> None:
    alarm = tell(HangDetector(CONFIG), 0, heartbeat(0, "forward", 75, waiting=True), heartbeat(1, "wait", 75))
    assert alarm is not None
    assert "rank 0" in alarm.text
    assert "rank 1" in alarm.text
    assert "at different places, so one left out a collective" in alarm.text


def test_a_frozen_worker_is_named_as_silent_without_its_stack() -> None:
    watch = HangDetector(CONFIG)
    tell(watch, 0, heartbeat(0, "wait", 1), heartbeat(1, "wait", 1))
    assert tell(watch, 58, heartbeat(0, "wait", 59)) is None
    alarm = tell(watch, 62, heartbeat(0, "wait", 63))
    assert alarm is not None
    assert alarm.late == (1,)
    assert "no sign of life for 62 s" in alarm.text
    assert list(alarm.stacks) == [0]


def test_a_worker_that_never_came_is_named_after_the_time_for_the_start() -> None:
    watch = HangDetector(CONFIG)
    assert tell(watch, 0, heartbeat(0, "idle", 0, step=0, pace=None)) is None
    assert tell(watch, 1700, heartbeat(0, "idle", 1700, step=0, pace=None)) is None
    alarm = tell(watch, 1801, heartbeat(0, "idle", 1801, step=0, pace=None))
    assert alarm is not None
    assert alarm.late == (1,)


def test_beats_that_are_lost_on_the_way_are_no_alarm_while_training_goes_on() -> None:
    watch = HangDetector(CONFIG)
    tell(watch, 0, heartbeat(0), heartbeat(1))
    assert all(
        tell(watch, now, heartbeat(0, seconds=0.05, step=now, collectives=20 + now)) is None
        for now in range(10, 500, 10)
    )


def test_the_alarm_does_not_wait_forever_for_stacks() -> None:
    watch = HangDetector(CONFIG)
    stuck = heartbeat(0, "wait", 75), heartbeat(1, "data", 75)
    for one in stuck:
        watch.observe(one, 0)
    assert watch.check(0) is None
    assert all(watch.observe(one, COLLECT_S / 2).dump for one in stuck)
    alarm = watch.check(COLLECT_S)
    assert alarm is not None
    assert alarm.stacks == {}


@pytest.mark.parametrize(
    "quiet",
    [
        (heartbeat(0, "evaluate", 900), heartbeat(1, "evaluate", 900)),
        (heartbeat(0, "save", 900), heartbeat(1, "save", 900)),
        (heartbeat(0, "forward", 900, pace=None), heartbeat(1, "forward", 900, pace=None)),
        (heartbeat(0, "save", 900), heartbeat(1, "wait", 900, step=7, collectives=22)),
    ],
    ids=["evaluation", "checkpoint", "first step", "waiting for a checkpoint"],
)
def test_what_is_no_step_may_take_as_long_as_the_start_and_no_longer(quiet: tuple[Heartbeat, ...]) -> None:
    watch = HangDetector(CONFIG)
    assert tell(watch, 0, *quiet) is None
    assert tell(watch, 1000, *(replace(one, seconds=1900.0) for one in quiet)) is not None


def test_a_new_attempt_begins_anew_and_beats_of_the_last_are_ignored() -> None:
    watch = HangDetector(CONFIG)
    assert tell(watch, 0, heartbeat(0, "wait", 75), heartbeat(1, "data", 75)) is not None
    watch.abort("it hangs")
    assert watch.observe(heartbeat(0, "wait", 75), 1) == Orders(abort="it hangs")
    alone = heartbeat(0, "idle", 100, attempt=1, world=1, step=0, pace=None)
    assert watch.observe(alone, 2) == Orders()
    watch.observe(heartbeat(1, "data", 3600), 2)
    assert watch.check(2) is None


def test_torch_is_bounded_because_its_waiting_is_timed_by_replacing_it() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    (bounds,) = [need.specifier for need in map(Requirement, project["dependencies"]) if need.name == "torch"]
    assert torch.__version__ in bounds
    assert not any(version in bounds for version in ("2.14.0", "3.0.0")), "not tried with those"


def test_a_watchdog_that_is_off_tells_nothing() -> None:
    watch = HangDetector(CONFIG.model_copy(update={"multiple": None}))
    assert (
        tell(watch, 0, heartbeat(0, "wait", 9999), heartbeat(1, "data", 9999, pace=replace(FAST, own_s=9.0)))
        is None
    )
    assert watch.slow(100) == ()


def changes(watch: HangDetector, start: int, own: list[float], step_s: float) -> list[Slow]:
    """Fifteen seconds in which the workers' own parts are `own`."""
    told: list[Slow] = []
    for now in range(start, start + 15):
        for rank, own_s in enumerate(own):
            watch.observe(heartbeat(rank, world=len(own), pace=Pace(50, step_s, own_s, "data")), now)
        told += watch.slow(now)
    return told


def test_a_slow_worker_is_told_once_and_again_when_it_has_caught_up() -> None:
    watch = HangDetector(CONFIG)
    (slow,) = changes(watch, 0, [0.2, 0.1, 0.1, 0.11], 0.2)
    assert (slow.rank, slow.own_s, slow.caught_up) == (0, 0.2, False)
    assert slow.typical_s == pytest.approx(0.1)
    assert "its own part of a step takes 0.2 s, most of it in data; the median worker's 0.1 s" in slow.text
    assert changes(watch, 20, [0.14, 0.1, 0.1, 0.11], 0.2) == [], "at the edge nothing new is told"
    assert [change.caught_up for change in changes(watch, 40, [0.11, 0.1, 0.1, 0.11], 0.2)] == [True]


def test_a_difference_that_costs_no_time_or_does_not_last_is_not_slow() -> None:
    assert changes(HangDetector(CONFIG), 0, [0.004, 0.001], 0.2) == [], "a slow host before a slower device"
    watch = HangDetector(CONFIG)
    for start in range(0, 60, 30):
        for now in range(start, start + 4):
            watch.observe(heartbeat(0, pace=Pace(50, 0.2, 0.2, "data")), now)
            watch.observe(heartbeat(1, pace=Pace(50, 0.2, 0.1, "data")), now)
            assert watch.slow(now) == ()
        assert changes(watch, start + 4, [0.1, 0.1], 0.2) == []


class Pair:
    """Two workers, and what brings their beats to a Watch and its orders back."""

    def __init__(self, folder: Path, *, sharded: bool) -> None:
        spawn = mp.get_context("spawn")
        pipes = [spawn.Pipe() for _ in range(2)]
        self.links = [link for link, _ in pipes]
        self.processes = [
            spawn.Process(target=watched.work, args=(rank, sharded, folder, pipe), daemon=True)
            for rank, (_, pipe) in enumerate(pipes)
        ]
        self.watch = HangDetector(Watchdog(multiple=10, min_s=2, startup_s=120))
        for process, (_, pipe) in zip(self.processes, pipes, strict=True):
            process.start()
            pipe.close()

    def until(self, ask: Callable[[float], Any]) -> Any:
        """What `ask` says when it says something; it is asked at every beat."""
        start = time.monotonic()
        while time.monotonic() - start < 120:
            ready = wait(self.links, timeout=watched.INTERVAL_S)
            for link in [link for link in self.links if link in ready]:
                try:
                    link.send(self.watch.observe(link.recv(), time.monotonic()))
                except (EOFError, OSError):
                    self.links.remove(link)
            if found := ask(time.monotonic()):
                return found
        raise AssertionError("nothing was told")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Pair]]:
    pairs: list[Pair] = []

    def make(*, sharded: bool) -> Pair:
        pairs.append(Pair(tmp_path, sharded=sharded))
        return pairs[-1]

    yield make
    for process in pairs[0].processes:
        process.kill()
        process.join()


@pytest.mark.slow
def test_of_two_real_workers_the_slow_reader_and_then_the_one_that_hangs_are_named(
    start: Callable[..., Pair], tmp_path: Path
) -> None:
    pair = start(sharded=False)
    (slow,) = pair.until(pair.watch.slow)
    assert (slow.rank, slow.own_s > watched.SLOW_S > slow.typical_s) == (0, True)
    assert "most of it in data" in slow.text

    (tmp_path / "trap").touch()
    began = time.monotonic()
    alarm = pair.until(pair.watch.check)
    assert 2 < time.monotonic() - began < 10
    line = next(
        n
        for n, text in enumerate(Path(watched.__file__).read_text().splitlines(), 1)
        if "sleep(3600)" in text
    )
    assert alarm.late == (1,)
    where = (
        rf"rank 1 \(pid {pair.processes[1].pid} on node a\) is in forward of step {alarm.step} for \d s at"
        rf" watched.py:{line} in loss_of; "
    )
    assert re.match(where, alarm.text)
    assert alarm.stacks[1].startswith("thread MainThread:")
    assert f"> {watched.__file__}:{line} in loss_of: time.sleep(3600)" in alarm.stacks[1]

    pair.watch.abort(alarm.text)
    assert pair.until(lambda now: [process.exitcode for process in pair.processes] == [ABORTED, ABORTED])


@pytest.mark.slow
def test_of_two_real_workers_the_slow_forward_pass_and_then_the_frozen_one_are_named(
    start: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raystack.training.watchdog.hang.SILENT_S", 1.0)
    pair = start(sharded=True)
    (slow,) = pair.until(pair.watch.slow)
    assert (slow.rank, slow.own_s > watched.SLOW_S > slow.typical_s) == (1, True)
    assert "most of it in forward" in slow.text

    frozen = pair.processes[0].pid
    assert frozen is not None
    os.kill(frozen, signal.SIGSTOP)
    alarm = pair.until(pair.watch.check)
    assert alarm.late == (0,)
    assert "no sign of life" in alarm.text
    assert list(alarm.stacks) == [1]


def test_a_driver_that_is_away_costs_a_worker_nothing_and_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def send(heartbeat: Heartbeat) -> Orders:
        raise ConnectionError("nobody there")

    with HeartbeatSender(
        send, attempt=0, rank=0, world=1, node="a", folder=None, interval_s=0.01
    ) as heartbeats:
        heartbeats.begin(0)
        time.sleep(0.1)
    assert len([record for record in caplog.records if "nobody there" in record.message]) == 1
