"""Checkpoints: whole or not at all, checked, and kept by rule."""

import json
from pathlib import Path

import pytest

from raystack.checkpoint import Found, Manifest, Store
from raystack.config.training import KeepBest


def manifest(step: int, **metrics: float) -> Manifest:
    return Manifest("run", step, step * 8, 100, 0, 8, 1, "ddp", {f"eval/{name}": value for name, value in metrics.items()})


def fill(folder: Path) -> None:
    (folder / "state").mkdir()
    (folder / "state" / "weights").write_bytes(bytes(range(256)))
    (folder / "config.yaml").write_text("a: 1\n")


def good_step(found: Found) -> int | None:
    return found.manifest.step if found.manifest else None


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path}")


def test_what_is_saved_is_found_again(store: Store) -> None:
    for step in (10, 20):
        store.save(manifest(step, loss=0.5), fill)
    found = store.latest_good()
    assert good_step(found) == 20
    assert found.skipped == ()
    assert found.manifest is not None
    assert set(found.manifest.files) == {"state/weights", "config.yaml"}
    with store.fetch(10, "state") as folder:
        assert (folder / "weights").read_bytes() == bytes(range(256))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "no manifest", "half a manifest", "other format"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path: Path, damage: str) -> None:
    store = Store(str(tmp_path))
    for step in (10, 20):
        store.save(manifest(step), fill)
    newest = Path(store.folder(20))
    weights, record = newest / "state" / "weights", newest / "manifest.json"
    match damage:
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:100])
        case "flipped":
            weights.write_bytes(b"\x01" + weights.read_bytes()[1:])
        case "missing":
            weights.unlink()
        case "no manifest":
            record.unlink()
        case "half a manifest":
            record.write_text(record.read_text()[:50])
        case "other format":
            record.write_text(json.dumps({**json.loads(record.read_text()), "format": 99}))
    found = store.latest_good()
    assert good_step(found) == 10
    assert len(found.skipped) == 1
    assert str(found.skipped[0]).startswith(store.folder(20))
    store.save(manifest(20), fill)
    assert good_step(store.latest_good()) == 20


def test_a_save_that_breaks_off_leaves_nothing(store: Store) -> None:
    def broken(folder: Path) -> None:
        fill(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.save(manifest(10), broken)
    assert store.manifests() == []
    assert store.latest_good() == Found(None)


def test_the_last_and_the_best_are_kept(store: Store) -> None:
    for step, loss in ((1, 0.1), (2, 0.9), (3, 0.1), (4, 0.5), (5, 0.6)):
        store.save(manifest(step, loss=loss), fill)
    assert store.prune(last=2, best=KeepBest(metric="eval/loss", mode="min")) == [2, 3]
    assert [kept.step for kept in store.manifests()] == [1, 4, 5]
    assert store.prune(last=1, best=None) == [1, 4]
