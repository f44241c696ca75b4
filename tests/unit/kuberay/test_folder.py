"""The folder of a render holds what was rendered last, and nobody else's file is lost."""

from pathlib import Path

import pytest

from raystack.errors import ConfigError
from raystack.kuberay.actions.folder import RECORD, write


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {RECORD}


def test_what_is_no_longer_rendered_is_removed(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mine")
    write(tmp_path, {"a.yaml": "a", "b.yaml": "b"}, "kustomize")
    again = write(tmp_path, {"b.yaml": "bb"}, "kustomize")
    assert (again.removed, again.kept) == ((tmp_path / "a.yaml",), ())
    assert names(tmp_path) == {"mine.yaml", "b.yaml"}


def test_what_was_changed_by_hand_stays(tmp_path: Path) -> None:
    write(tmp_path, {"a.yaml": "a"}, "kustomize")
    (tmp_path / "a.yaml").write_text("changed")
    assert write(tmp_path, {"b.yaml": "b"}, "kustomize").kept == (tmp_path / "a.yaml",)
    assert names(tmp_path) == {"a.yaml", "b.yaml"}


def test_a_file_of_somebody_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"a\.yaml: no render has written it"):
        write(tmp_path, {"a.yaml": "a", "b.yaml": "b"}, "job")
    assert names(tmp_path) == {"a.yaml"}
    write(tmp_path, {"a.yaml": "mine"}, "job")
    write(tmp_path, {"a.yaml": "a"}, "all")
    assert (tmp_path / "a.yaml").read_text() == "a", "it is a render's now"
    (tmp_path / "c.yaml").write_text("labels: {app.kubernetes.io/managed-by: raystack}")
    write(tmp_path, {"c.yaml": "c"}, "job")
    assert (tmp_path / "c.yaml").read_text() == "c", "a render of an earlier version has written it"


def test_sets_of_files_stay_beside_each_other(tmp_path: Path) -> None:
    write(tmp_path, {"job.yaml": "j", "cluster.yaml": "c"}, "all")
    write(tmp_path, {"job.yaml": "jj"}, "job")
    assert names(tmp_path) == {"job.yaml", "cluster.yaml"}
    write(tmp_path, {"service.yaml": "s"}, "all")
    assert names(tmp_path) == {"job.yaml", "service.yaml"}


def test_a_record_leads_nowhere_else(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("a")
    folder = tmp_path / "deploy"
    write(folder, {"a.yaml": "a"}, "job")
    record = (folder / RECORD).read_text().replace("a.yaml", "../other.yaml")
    (folder / RECORD).write_text(record)
    write(folder, {"b.yaml": "b"}, "job")
    assert other.exists()
