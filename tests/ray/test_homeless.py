"""The commands for a user without a home folder, and with a folder for temporary files whose path is long."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from driver import TINY

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
STRANGER = [
    "unshare",
    "--user",
    f"--map-user={100_000 + os.getuid()}",
    f"--map-group={100_000 + os.getgid()}",
]
"""Runs a command as a user whom the machine does not know, as containers do; what files allow stays."""


def run(
    *words: str, prefix: tuple[str, ...] = (), **changes: str | None
) -> "subprocess.CompletedProcess[str]":
    """`python -m raystack ...` in this environment with `changes`; None takes a variable away."""
    merged = {**os.environ, **changes}
    environment = {name: value for name, value in merged.items() if value is not None}
    command = [*prefix, sys.executable, "-m", "raystack", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)


@pytest.fixture
def stranger() -> tuple[str, ...]:
    """Words before a command that is run by a user whom the machine does not know."""
    config = subprocess.run([*STRANGER, "true"], capture_output=True, text=True)
    if config.returncode != 0:
        pytest.skip(f"this machine makes no user namespaces for everybody: {config.stderr.strip()}")
    return tuple(STRANGER)


@pytest.fixture
def deep(tmp_path: Path) -> str:
    """A folder whose path is longer than the address of a socket may be."""
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    return str(folder)


def in_one_line(done: "subprocess.CompletedProcess[str]", status: int, *words: str) -> None:
    assert done.returncode == status, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words), line


def test_without_a_home_one_line_says_where_runs_could_be_kept(
    stranger: tuple[str, ...], tmp_path: Path
) -> None:
    done = run("train", str(TINY), "--dry-run", prefix=stranger, HOME=None, RAYSTACK_STORAGE=None)
    in_one_line(done, 2, "experiment.storage", "there is no home folder", "set it or RAYSTACK_STORAGE")
    done = run("train", str(TINY), HOME="/proc", RAYSTACK_STORAGE=None)
    in_one_line(
        done,
        2,
        "experiment.storage: /proc/raystack/runs/",
        "refuses",
        "set it, or RAYSTACK_STORAGE, to a folder that may be written",
    )
    assert run("train", str(TINY), "--dry-run", "--memory", prefix=stranger, HOME=None).returncode == 0
    in_one_line(
        run("status", prefix=stranger, HOME=None, KUBECONFIG=None),
        4,
        "set target.kubeconfig, --kubeconfig or KUBECONFIG",
    )
    in_one_line(
        run("status", "--address", "http://127.0.0.1:1", prefix=stranger, HOME=None),
        4,
        "no Ray dashboard answers there",
    )


def test_training_in_this_process_needs_no_home(stranger: tuple[str, ...], deep: str) -> None:
    done = run("train", str(TINY), "training.data.loaders=1", prefix=stranger, HOME=None, TMPDIR=deep)
    assert done.returncode == 0, done.stderr
    run_folder = next(
        line.split()[1] for line in done.stdout.splitlines() if line.startswith("checkpoint")
    ).rpartition("/checkpoints")[0]
    assert run("checkpoint", "verify", run_folder, prefix=stranger, HOME=None).returncode == 0


@pytest.mark.ray
@pytest.mark.parametrize(
    ("home", "strategy"),
    [
        ("/proc", "ddp"),
        pytest.param(None, "ddp", marks=pytest.mark.long),
        pytest.param("/nonexistent", "ddp", marks=pytest.mark.long),
        pytest.param(None, "zero2", marks=pytest.mark.long),
        pytest.param("/proc", "zero2", marks=pytest.mark.long),
    ],
)
def test_a_run_on_this_machine_needs_neither_a_home_nor_a_short_tmpdir(
    home: str | None, strategy: str, stranger: tuple[str, ...], deep: str
) -> None:
    done = run(
        "train", str(TINY), "resources=cpu2", f"strategy={strategy}", prefix=stranger, HOME=home, TMPDIR=deep
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
