"""Writing to a place that is away, refuses, or is not what it seems."""

import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from fsspec.registry import _registry

from raystack.checkpoint import CheckpointStore, CheckpointWriter, FileEntry, Manifest, writer
from raystack.errors import ConfigError, TrainingError

Away = Callable[[], AbstractContextManager[None]]

RECORD = Manifest("run", 10, 80, 100, 0, 8, 2, "ddp", "a")


def one_worker(store: CheckpointStore, rank: int) -> tuple[CheckpointWriter, dict[str, FileEntry]]:
    part = store.writer(10, "a")
    (part.folder / "state" / "a").mkdir(parents=True, exist_ok=True)
    name = f"state/a/{rank}"
    (part.folder / name).write_bytes(bytes([rank]) * 100)
    return part, part.entries([name])


@pytest.mark.usefixtures("hurry")
def test_an_upload_waits_for_a_store_that_is_away_and_catches_up(away: Away, bucket: str) -> None:
    store, go_on = CheckpointStore(f"{bucket}/run"), threading.Event()
    parts = [one_worker(store, rank) for rank in range(2)]
    record = replace(RECORD, files={**parts[0][1], **parts[1][1]})
    parts[1][0].send(parts[1][1], go_on)

    def work() -> None:
        parts[0][0].send(parts[0][1], go_on)
        parts[0][0].publish(record, go_on)
        store.until(go_on).prune(1, None)

    uploading = threading.Thread(target=work)
    with away():
        uploading.start()
        uploading.join(timeout=0.5)
        assert uploading.is_alive()
        with pytest.raises(TrainingError, match="the storage does not answer"):
            store.manifests()
    uploading.join(timeout=20)
    assert not uploading.is_alive()
    found = store.latest_good()
    assert found.manifest == record
    assert found.skipped == ()
    for part, _ in parts:
        part.drop()


@pytest.mark.usefixtures("hurry")
def test_an_upload_to_a_store_that_stays_away_ends_when_it_is_told_to(away: Away, bucket: str) -> None:
    part, files = one_worker(CheckpointStore(f"{bucket}/run"), 0)
    stop = threading.Event()
    with away():
        threading.Timer(0.3, stop.set).start()
        with pytest.raises(TrainingError, match="the upload was stopped before it was done"):
            part.send(files, stop)
    part.drop()
    assert not part.folder.exists()


def test_publishing_waits_for_the_files_of_the_other_workers(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "POLL_S", 0.05)
    store, go_on = CheckpointStore(f"{bucket}/run"), threading.Event()
    parts = [one_worker(store, rank) for rank in range(2)]
    record = replace(RECORD, files={**parts[0][1], **parts[1][1]})
    parts[0][0].send(parts[0][1], go_on)
    publishing = threading.Thread(target=parts[0][0].publish, args=(record, go_on))
    publishing.start()
    publishing.join(timeout=0.2)
    assert publishing.is_alive()
    assert store.latest_good().manifest is None
    parts[1][0].send(parts[1][1], go_on)
    publishing.join(timeout=20)
    assert store.latest_good().manifest == record
    for part, _ in parts:
        part.drop()


def test_a_local_storage_that_is_not_shared_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SETTLE_S", 0.0)
    mine, files = one_worker(CheckpointStore(str(tmp_path / "here")), 0)
    _, others = one_worker(CheckpointStore(str(tmp_path / "elsewhere")), 1)
    mine.send(files, threading.Event())
    with pytest.raises(ConfigError, match=r"^experiment.storage: this storage is not shared: state/a/1"):
        mine.publish(replace(RECORD, files={**files, **others}), threading.Event())
    assert CheckpointStore(str(tmp_path / "here")).manifests() == []


@pytest.mark.usefixtures("object_store")
def test_a_bucket_that_is_not_there_is_told_at_once() -> None:
    store = CheckpointStore("s3://no-such-bucket/run")
    part, files = one_worker(store, 0)
    for ask in (lambda: part.send(files, threading.Event()), store.latest_good, lambda: store.prune(1, None)):
        with pytest.raises(
            ConfigError,
            match=r"^experiment.storage: s3://no-such-bucket/run refuses: .*bucket does not exist",
        ):
            ask()
    part.drop()


def test_a_store_without_permission_is_told_at_once(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(f"{bucket}/run")
    part, files = one_worker(store, 0)

    def forbidden(*args: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(fsspec.filesystem("s3"), "put_file", forbidden)
    with pytest.raises(ConfigError, match=r"^experiment.storage: .* refuses: PermissionError: Access Denied"):
        part.send(files, threading.Event())
    part.drop()


def test_s3_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'raystack-ml\[s3\]'"):
        CheckpointStore("s3://bucket/run")
