"""A driver that was taken for dead, and its workers, change nothing in a run that has another driver."""

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from raystack.checkpoint import CheckpointStore, Manifest, fence
from raystack.checkpoint.fence import Fence, Holder
from raystack.errors import TrainingError
from raystack.storage import Storage

FIRST, SECOND = Holder(1, "first", "here", 6), Holder(2, "second", "there", 7, "run", 2)


def test_a_late_attempt_publishes_nothing_and_deletes_nothing(
    url: str, save: Callable[..., Manifest]
) -> None:
    run = url.rpartition("/")[0]
    late = CheckpointStore(url, Fence(run, FIRST))
    record = save(url, 10)
    late.prune(1, None, 10)  # nobody has taken anything yet
    fence.write(Storage(run), SECOND, 0.0)
    save(url, 20)

    stop = threading.Event()
    with pytest.raises(
        TrainingError,
        match="another driver has taken this run and goes on with it: attempt 2, process 7 on there",
    ):
        late.until(stop).prune(1, None, 10)
    draft = late.writer(20, "late")
    (draft.folder / "config.yaml").write_text("late")
    entries = draft.entries()
    draft.send(entries, stop)
    with pytest.raises(TrainingError, match="another driver has taken this run"):
        draft.publish(replace(record, step=20, files=entries), stop)
    draft.drop()

    assert [manifest.step for manifest in CheckpointStore(url).manifests()] == [10, 20]
    assert CheckpointStore(url).latest_good().skipped == ()
    CheckpointStore(url, Fence(run, SECOND)).prune(1, None, 20)
    assert [manifest.step for manifest in CheckpointStore(url).manifests()] == [20]


def test_of_two_that_began_in_one_moment_one_goes_on() -> None:
    same = replace(FIRST, token="twin")
    assert same.yields_to(FIRST)
    assert not FIRST.yields_to(replace(FIRST, time=9.0, held=False))
    assert not SECOND.yields_to(FIRST)
    assert not FIRST.yields_to(None)
