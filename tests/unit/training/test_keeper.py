"""What a driver keeps of its run while it goes on; nothing is lost when a write fails or it is killed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from raystack.checkpoint.fence import Fence, Holder
from raystack.events import Alarm, Stepped
from raystack.plan import TrainPlan
from raystack.storage import Storage
from raystack.training.driver import keeper as keeping
from raystack.training.driver.keeper import Keeper


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def keeper(plan_tiny: Callable[..., TrainPlan], folder: Path) -> Keeper:
    return Keeper(plan_tiny(), Fence(str(folder), Holder(2, "token", "host", 1)))


def step(number: int) -> Stepped:
    return Stepped(number, {"train/loss": 1 / number})


def steps(folder: Path) -> dict[str, list[int]]:
    return {
        file.name: [json.loads(line)["step"] for line in file.read_text().splitlines()]
        for file in sorted((folder / "metrics").iterdir())
    }


def test_metrics_are_in_parts_and_a_failed_write_is_made_up_for(
    keeper: Keeper, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "PART_LINES", 3)
    keeper(step(1))
    keeper.flush(Storage(str(folder)))
    assert steps(folder) == {"0002-0001.jsonl": [1]}
    for number in range(2, 9):
        keeper(step(number))
    with monkeypatch.context() as full:
        full.setattr(Storage, "write", lambda *given: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            keeper.flush(Storage(str(folder)))
    keeper.flush(Storage(str(folder)))
    assert steps(folder) == {
        "0002-0001.jsonl": [1, 2, 3],
        "0002-0002.jsonl": [4, 5, 6],
        "0002-0003.jsonl": [7, 8],
    }


def test_nothing_is_written_again_that_has_not_changed(keeper: Keeper, folder: Path) -> None:
    keeper(step(1))
    keeper.flush(Storage(str(folder)))
    written: list[str] = []

    class Watched(Storage):
        def write(self, name: str, text: str) -> None:
            written.append(name)
            super().write(name, text)

    keeper.flush(Watched(str(folder)))
    assert written == []
    keeper(step(2))
    keeper.flush(Watched(str(folder)))
    assert written == ["metrics/0002-0001.jsonl"]


def test_the_end_of_a_jobs_log_and_stacks_of_a_hang_are_kept(
    plan_tiny: Callable[..., TrainPlan], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "job-driver-x.log"
    log.write_text("a line\n" * 3 + "the last\n")
    monkeypatch.setattr(keeping, "_output", lambda: log)
    monkeypatch.setattr("raystack.job_context.submission", lambda: "tiny-1-a1")
    monkeypatch.setattr(keeping, "LOG_BYTES", 16)
    keeper = Keeper(plan_tiny(), Fence(str(folder), Holder(1, "token", "host", 1)))
    keeper(Alarm(4, (1,), "rank 1 hangs", {1: "File x, line 2"}))
    keeper.flush(Storage(str(folder)))
    kept = folder / "kept"
    assert (kept / "driver" / "tiny-1-a1.log").read_text() == "a line\nthe last\n"
    assert (kept / "stacks" / "step-4.txt").read_text() == "rank 1 hangs\n\nrank 1\nFile x, line 2\n\n"
