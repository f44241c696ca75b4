"""Checkpoints: whole or not at all, checked, and kept by rule; on a disk and in an object store alike."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest

from raystack.checkpoint import CheckpointStore, Found, Manifest
from raystack.checkpoint.report import list_checkpoints, verify_checkpoints
from raystack.config.training import KeepBest
from raystack.errors import Problem, TrainingError

Save = Callable[..., Manifest]


def good_step(found: Found) -> int | None:
    return found.manifest.step if found.manifest else None


def change(url: str, edit: Callable[[bytes], bytes] | None) -> None:
    """Damage a file behind raystack's back."""
    fs, path = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    content = fs.cat_file(path)
    fs.rm_file(path)
    if edit is not None:
        fs.pipe_file(path, edit(content))


def test_what_two_workers_write_is_found_again(url: str, save: Save) -> None:
    for step in (10, 20):
        save(url, step, loss=0.5)
    store = CheckpointStore(url)
    found = store.latest_good()
    assert good_step(found) == 20
    assert found.skipped == ()
    assert found.manifest is not None
    assert set(found.manifest.files) == {"state/a/0", "state/a/1", "config.yaml", "model/model.json"}
    assert found.manifest.state == "state/a"
    with store.fetch(10, "state/a") as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["0", "1"]
        assert (folder / "1").read_bytes() == (bytes(range(256)) * 8)[::-1]
    with store.fetch(10) as folder:
        assert (folder / "state" / "a" / "0").is_file()
        assert (folder / "config.yaml").read_text() == "a: 1\n"


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes] | None]] = {
    "truncated": ("state/a/1", lambda content: content[:100]),
    "flipped": ("state/a/0", lambda content: bytes([content[0] ^ 1]) + content[1:]),
    "missing": ("model/model.json", None),
    "no manifest": ("manifest.json", None),
    "half a manifest": ("manifest.json", lambda content: content[:50]),
    "other format": (
        "manifest.json",
        lambda content: json.dumps({**json.loads(content), "format": 99}).encode(),
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(url: str, save: Save, damage: str) -> None:
    for step in (10, 20):
        save(url, step)
    store = CheckpointStore(url)
    name, edit = DAMAGE[damage]
    change(f"{store.folder(20)}/{name}", edit)
    found = store.latest_good()
    assert good_step(found) == 10
    assert len(found.skipped) == 1
    assert found.skipped[0].where == (
        store.folder(20) if damage == "no manifest" else f"{store.folder(20)}/{name}"
    )
    save(url, 20)
    assert good_step(store.latest_good()) == 20


def _folder(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _below_a_file(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.write_bytes(b"")


def _link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


WRONG: dict[str, Callable[[Path], None]] = {
    "a folder": _folder,
    "a named pipe": _pipe,
    "a link to nothing": lambda path: _link(path, "nowhere"),
    "a link to itself": lambda path: _link(path, path.name),
    "empty": lambda path: os.truncate(path, 0),
    "below a file": _below_a_file,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["manifest.json", "state/a/1"])
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_file_any_more_is_damage_and_the_checkpoint_before_is_used(
    tmp_path: Path, save: Save, name: str, wrong: str
) -> None:
    for step in (10, 20):
        save(str(tmp_path), step)
    store = CheckpointStore(str(tmp_path))
    WRONG[wrong](Path(store.folder(20)) / name)
    found = store.latest_good()
    assert good_step(found) == 10
    (problem,) = found.skipped
    assert problem.where.startswith(store.folder(20))
    (old, damaged) = sorted(verify_checkpoints(str(tmp_path), _quietly), key=lambda report: report.step)
    assert (old.state, damaged.problems[0]) == ("ok", problem)
    assert [report.state == "ok" for report in list_checkpoints(str(tmp_path))].count(True) >= 1
    save(str(tmp_path), 20, "b")
    assert store.latest_good().skipped == (), "it can be written anew"
    WRONG[wrong](Path(store.folder(20)) / name.replace("/a/", "/b/"))
    save(str(tmp_path), 30)
    store.prune(last=1, best=None, upto=30)
    assert good_step(store.latest_good()) == 30


def test_a_checkpoint_that_is_a_link_is_used_and_deleted_as_one(tmp_path: Path, save: Save) -> None:
    moved, url = tmp_path / "elsewhere", str(tmp_path / "checkpoints")
    save(url, 10)
    store = CheckpointStore(url)
    shutil.move(store.folder(10), moved)
    Path(store.folder(10)).symlink_to(moved)
    assert good_step(store.latest_good()) == 10
    save(url, 10, "b")
    assert not Path(store.folder(10)).is_symlink(), "its step was written anew"
    shutil.rmtree(store.folder(10))
    Path(store.folder(10)).symlink_to(moved)
    save(url, 20)
    assert store.prune(last=1, best=None, upto=20) == [10]
    assert (moved / "config.yaml").is_file(), "a link is deleted, and not what it leads to"


@contextmanager
def _quietly(total: int) -> Iterator[Callable[[int], None]]:
    yield lambda count: None


@pytest.mark.parametrize(
    "content", [b"[]", b'"text"', b"null", b"\xff\xfe", b"[" * 100_000], ids=lambda content: str(content[:6])
)
def test_json_that_is_no_manifest_is_damage(tmp_path: Path, save: Save, content: bytes) -> None:
    _with_manifest(tmp_path, save, lambda values: content)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", "many"),
        ("step", 10),
        ("files", []),
        ("files", {"config.yaml": 3}),
        ("files", {"../../secret": {"sha256": "", "bytes": 1}}),
        ("metrics", [1]),
        ("metrics", {"eval/loss": "low"}),
        ("world_size", None),
        ("later", 1),
    ],
    ids=str,
)
def test_a_manifest_with_a_value_of_another_kind_is_damage(
    tmp_path: Path, save: Save, key: str, value: object
) -> None:
    _with_manifest(tmp_path, save, lambda values: json.dumps({**values, key: value}).encode())


def _with_manifest(tmp_path: Path, save: Save, written: Callable[[dict[str, object]], bytes]) -> None:
    for step in (10, 20):
        save(str(tmp_path), step)
    store = CheckpointStore(str(tmp_path))
    path = Path(store.folder(20)) / "manifest.json"
    path.write_bytes(written(json.loads(path.read_text())))
    found = store.latest_good()
    assert good_step(found) == 10
    assert [problem.where for problem in found.skipped] == [str(path)]
    assert "\n" not in str(found.skipped[0])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["manifest.json", "state/a/1"])
def test_a_file_that_may_not_be_read_is_damage(tmp_path: Path, save: Save, name: str) -> None:
    for step in (10, 20):
        save(str(tmp_path), step)
    store = CheckpointStore(str(tmp_path))
    (Path(store.folder(20)) / name).chmod(0)
    found = store.latest_good()
    assert good_step(found) == 10
    assert str(found.skipped[0]).endswith("cannot be read (got Permission denied)")
    Path(store.folder(20)).chmod(0)
    save(str(tmp_path), 30)
    store.prune(last=2, best=None, upto=30)
    assert [report.step for report in list_checkpoints(str(tmp_path)) if report.state == "ok"] == [10, 30]
    Path(store.folder(20)).chmod(0o700)


def test_the_newest_checkpoint_is_the_newest_whose_files_are_there(url: str, save: Save) -> None:
    store = CheckpointStore(url)
    assert store.newest() is None
    for step in (10, 20, 30):
        save(url, step)
    change(f"{store.folder(20)}/state/a/1", lambda content: content[:100])
    change(f"{store.folder(30)}/manifest.json", None)
    assert store.newest() == 10


def test_workers_who_share_the_checking_find_what_one_would(url: str, save: Save) -> None:
    record = save(url, 10)
    store = CheckpointStore(url)
    change(f"{store.folder(10)}/state/a/1", lambda content: content[1:])
    problems = [store.damaged(record, part, 3) for part in range(3)]
    assert [problem.where for problem in problems if problem] == [f"{store.folder(10)}/state/a/1"]
    assert [type(candidate) for candidate in store.candidates()] == [Manifest]


def test_a_second_attempt_at_a_step_replaces_the_first_and_leaves_nothing_of_it(url: str, save: Save) -> None:
    save(url, 10, "a")
    save(url, 10, "b", loss=0.1)
    store = CheckpointStore(url)
    found = store.latest_good()
    assert found.manifest is not None
    assert found.manifest.attempt == "b"
    with store.fetch(10) as folder:
        assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
            "0",
            "1",
            "config.yaml",
            "manifest.json",
            "model.json",
        ]


def test_the_last_and_the_best_are_kept(url: str, save: Save) -> None:
    for step, loss in ((1, 0.1), (2, 0.9), (3, 0.1), (4, 0.5), (5, 0.6)):
        save(url, step, loss=loss)
    store = CheckpointStore(url)
    assert store.prune(last=2, best=KeepBest(metric="eval/loss", mode="min")) == [2, 3]
    assert [kept.step for kept in store.manifests()] == [1, 4, 5]
    assert store.prune(last=1, best=None) == [1, 4]


def test_what_killed_attempts_left_is_pruned_once_a_newer_checkpoint_is_there(url: str, save: Save) -> None:
    store = CheckpointStore(url)
    for step in (10, 30):
        save(url, step)
        change(f"{store.folder(step)}/manifest.json", None)
    killed = store.writer(15, "killed")
    assert store.prune(last=1, best=None) == []
    save(url, 20)
    assert store.prune(last=1, best=None) == [10]
    assert killed.folder.exists() == (not url.startswith("/"))
    killed.drop()
    assert [
        candidate.where if isinstance(candidate, Problem) else candidate.step
        for candidate in store.candidates()
    ] == [
        store.folder(30),
        20,
    ]


def test_a_part_is_added_to_a_published_checkpoint(url: str, save: Save) -> None:
    save(url, 10)
    store = CheckpointStore(url)

    def fill(folder: Path) -> None:
        (folder / "weights").write_bytes(b"w" * 9)

    added = store.add(10, "model", fill)
    found = store.latest_good()
    assert found.manifest == added
    assert found.skipped == ()
    assert added.files["model/weights"].bytes == 9
    with store.fetch(10, "model") as folder:
        assert {path.name for path in folder.iterdir()} == {"model.json", "weights"}
    with pytest.raises(TrainingError, match="has no manifest"):
        store.add(11, "model", fill)


def test_a_draft_that_is_dropped_leaves_nothing(url: str) -> None:
    store = CheckpointStore(url)
    draft = store.writer(10, "a")
    (draft.folder / "config.yaml").write_text("a: 1\n")
    draft.drop()
    draft.drop()
    assert not draft.folder.exists()
    assert store.latest_good() == Found(None)
