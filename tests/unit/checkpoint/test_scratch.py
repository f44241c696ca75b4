"""Temporary folders: what a killed process left does not fill the disk."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from raystack.checkpoint.scratch import Scratch

KILLED = """
import os, signal, sys, tempfile
tempfile.tempdir = sys.argv[1]
from raystack.checkpoint.scratch import Scratch
own = Scratch()
(own.folder / "shard").write_bytes(b"x")
print(own.folder, flush=True)
if sys.argv[2] == "killed": os.kill(os.getpid(), signal.SIGKILL)
sys.stdin.read()
"""


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_uses_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = Scratch()
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    left = Path(subprocess.run([*command, "killed"], capture_output=True, text=True).stdout.strip())
    with subprocess.Popen(
        [*command, "lives"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        used = Path(other.stdout.readline().strip())
        assert not left.exists()
        Scratch().remove()
        assert used.exists()
        assert own.folder.exists()
        other.communicate()
    Scratch().remove()
    assert not used.exists()
    own.remove()
    assert not own.folder.exists()
