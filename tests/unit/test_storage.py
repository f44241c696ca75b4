"""The error for a folder that no run can be kept in says what to set."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raystack.errors import ConfigError
from raystack.storage import Storage


@pytest.mark.parametrize("url", ["/proc/raystack", "/dev/null", "/dev/null/raystack"])
def test_a_folder_that_cannot_be_made_is_told(url: str) -> None:
    told = (
        rf"^experiment\.storage: {url} refuses: .*; set it, or RAYSTACK_STORAGE, to a folder that may be"
        r" written$"
    )
    with pytest.raises(ConfigError, match=told):
        Storage(url).make("")


def test_a_url_is_a_file_a_folder_or_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name, text in (("a/1.csv", "1"), ("a/2.csv", "22"), ("a/3.txt", "333"), ("[1].csv", "4444")):
        (tmp_path / name).write_text(text)

    def found(place: str) -> dict[str, int]:
        return {
            str(Path(url).relative_to(tmp_path)): info.bytes
            for url, info in Storage(f"{tmp_path}/{place}").found().items()
        }

    assert found("a") == {"a/1.csv": 1, "a/2.csv": 2, "a/3.txt": 3}
    assert found("a/*.csv") == {"a/1.csv": 1, "a/2.csv": 2}
    assert found("*/[23]*") == {"a/2.csv": 2, "a/3.txt": 3}
    assert found("[1].csv") == {"[1].csv": 4}, "a name with the letters of a pattern"
    assert found("b") == found("b/*") == {}


@pytest.mark.parametrize("url", ["{}/out", "memory://published"])
def test_a_published_file_is_whole_or_not_there(url: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    storage = Storage(url.format(tmp_path))

    def write_half() -> None:
        with storage.published("data") as path:
            path.write_text("half")
            assert "data" not in storage.names()
            raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        write_half()
    assert storage.names() == []
    with storage.published("data") as path:
        path.write_text("whole")
    assert storage.names() == ["data"]
    assert storage.read("data") == "whole"


def test_a_file_whose_writer_is_killed_is_no_file(tmp_path: Path) -> None:
    code = f"""
import os, signal
from raystack.storage import Storage
os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
Storage({str(tmp_path)!r}).write("one", "text")
"""
    subprocess.run([sys.executable, "-c", code], timeout=60)
    storage = Storage(str(tmp_path))
    (left,) = storage.unfinished()
    assert (tmp_path / left).read_text() == "text"
    assert storage.names() == []


def test_a_folder_is_deleted_in_which_a_file_is_made_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder" / "below").mkdir(parents=True)
    removes, late = os.rmdir, ["late"]

    def remove(path: str, **options: Any) -> None:
        if late:
            (tmp_path / "folder" / "below" / late.pop()).touch()
        removes(path, **options)

    monkeypatch.setattr("os.rmdir", remove)
    Storage(str(tmp_path)).delete("folder")
    assert list(tmp_path.iterdir()) == []
    assert not late
