"""Checkpoints on an object store that goes away for a while: the training goes on, and what was written
catches up.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import fsspec
import pytest
import torch

from raystack.checkpoint import CheckpointStore
from raystack.code.archive import pack
from raystack.events import Event, Saved, Stepped, Warned
from raystack.plan import TrainPlan
from raystack.training.async_checkpointer import _yield_to_training
from raystack.training.graceful_stop import GracefulStop
from raystack.training.loop import WorkerSpec, train
from raystack.training.watchdog.hang import Orders
from raystack.training.watchdog.heartbeat import HeartbeatSender
from raystack.training.world import World


@pytest.mark.slow
def test_training_goes_on_while_the_store_is_away_and_uploads_catch_up(
    plan_tiny: Callable[..., TrainPlan],
    object_store: object,
    away: Callable[[], AbstractContextManager[None]],
    tmp_path: Path,
) -> None:
    fsspec.filesystem("s3").mkdir("away")
    checkpoint = "training.checkpoint={every_steps: 2, keep_last: 20, pending: 2}"
    plan = plan_tiny(
        "experiment.storage=s3://away/runs", "training.epochs=10", checkpoint, "training.log_every_steps=1"
    )
    events: list[Event] = []
    absence = ExitStack()

    def listen(event: Event) -> None:
        events.append(event)
        match event:
            case Stepped(step=4):
                _until(lambda: len(CheckpointStore(plan.paths.checkpoints).manifests()) == 1)
                absence.enter_context(away())
            case Stepped(step=26):
                absence.close()

    world = World.join(0, 1, torch.device("cpu"))
    folder = plan.config.task.folder
    assert folder is not None
    heartbeats = HeartbeatSender(
        lambda heartbeat: Orders(), attempt=world.attempt, rank=0, world=1, node="here", folder=None
    )
    finished = train(WorkerSpec(plan, pack(folder)), world, listen, GracefulStop(world), heartbeats)

    assert finished.step == 30
    reported = [event.step for event in events if isinstance(event, Stepped)]
    assert reported == list(range(1, 31))
    store = CheckpointStore(plan.paths.checkpoints)
    saved = [manifest.step for manifest in store.manifests()]
    skipped = [event.text for event in events if isinstance(event, Warned)]
    assert saved == [event.step for event in events if isinstance(event, Saved)]
    # What was in the making when the store went away, and the last one; between them the disk holds two at
    # most.
    assert saved[:2] == [2, 4]
    assert saved[-1] == 30
    assert len(saved) + len(skipped) == 15
    assert all("skipped: 2 wait for s3://away" in text for text in skipped)
    assert skipped
    assert store.latest_good().skipped == ()


def _until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_writers_yield_to_the_training_at_any_niceness_and_without_a_right_to_change_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def niceness_of_a_writer() -> tuple[int, int]:
        """Of a training's thread at the niceness of a worker of `ray start`, and of its writer."""
        mine = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, mine, 15)
        with ThreadPoolExecutor(1, initializer=_yield_to_training) as writer:
            its = writer.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            return os.getpriority(os.PRIO_PROCESS, mine), its.result(10)

    with ThreadPoolExecutor(1) as training:
        assert training.submit(niceness_of_a_writer).result(20) == (15, 19)

    def forbidden(*_: int) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "setpriority", forbidden)
    with ThreadPoolExecutor(1, initializer=_yield_to_training) as writer:
        assert writer.submit(lambda: "written").result(10) == "written"
