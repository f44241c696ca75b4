"""A run finds a home folder and one for temporary files, whatever the environment says."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from raystack.environment import folders
from raystack.environment.folders import LONGEST, settle
from raystack.errors import LaunchError


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everything below the test's own folder, by way of a short name; what is set meanwhile is undone."""
    monkeypatch.setattr(folders, "SHORT", (str(tmp_path),))
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name in ("RAY_TMPDIR", "TMPDIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("RAY_TMPDIR")


@pytest.mark.parametrize("home", ["/nonexistent", "elsewhere", "/dev/null"])
def test_a_home_that_is_not_there_is_made_up_for_this_user_alone(
    home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", home)
    settle()
    made = Path.home()
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert made.parent.name == f"raystack-{os.getuid()}"
    assert folders.made_up() == {"HOME": str(made)}
    settle()
    assert Path.home() == made


def test_a_home_and_a_folder_that_can_be_used_are_left_alone(tmp_path: Path) -> None:
    before = dict(os.environ)
    settle()
    assert os.environ["HOME"] == before["HOME"] == str(tmp_path)
    assert os.path.samefile(os.environ["TMPDIR"], before["TMPDIR"])
    assert folders.made_up() == {}


def test_a_folder_with_a_long_path_gets_a_short_name_and_holds_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "SHORT", ("/nonexistent", str(tmp_path)))
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    settle()
    assert len(os.environ["TMPDIR"]) <= len(str(tmp_path)) + len("/raystack-4294967295/tmp/12345678")
    assert tempfile.gettempdir() == os.environ["TMPDIR"]
    Path(tempfile.gettempdir(), "written").write_text("here")
    assert (deep / "written").read_text() == "here"
    settle()
    assert os.path.samefile(tempfile.gettempdir(), deep)


@pytest.mark.parametrize("place", ["/nonexistent/tmp", "/proc"])
def test_a_folder_that_cannot_be_written_to_is_told_and_another_is_used(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("raystack.environment.folders.logger.propagate", True)
    monkeypatch.setenv("TMPDIR", place)
    monkeypatch.setenv("TEMP", str(tmp_path))
    settle()
    assert os.path.samefile(os.environ["TMPDIR"], tmp_path)
    assert f"TMPDIR={place} cannot be written to" in caplog.text


def test_a_folder_for_ray_with_a_long_path_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/" + "r" * LONGEST)
    with pytest.raises(
        LaunchError,
        match=(
            rf"^RAY_TMPDIR: should have at most {LONGEST} characters.*; leave it out, or name another folder$"
        ),
    ):
        settle()


def test_no_place_for_a_short_name_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "SHORT", ("/nonexistent",))
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    with pytest.raises(
        LaunchError,
        match=(
            rf"^TMPDIR: should have at most {LONGEST} characters.*; set it to a folder with a shorter path$"
        ),
    ):
        settle()


def test_a_folder_that_somebody_else_has_made_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(
        LaunchError, match=r"/raystack-54321: the folder belongs to somebody else; set HOME and TMPDIR"
    ):
        settle()
