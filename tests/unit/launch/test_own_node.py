"""The processes of a Ray that is started for a run outlast SIGTERM; what a task starts in them does not."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import ray._private.services as services

from raystack.ray_internals.start import OwnNode

WORKER = """
import signal, subprocess, sys
from raystack.ray_internals.start import outlast_sigterm

print("started", flush=True)
sys.stdin.readline()
outlast_sigterm()
child = subprocess.Popen(["sleep", "60"])
child.terminate()
print("child", child.wait(10), flush=True)
sys.stdin.readline()
print("outlasted", flush=True)
child = subprocess.Popen(["sleep", "60"])
print(child.pid, flush=True)
child.wait()
"""


def runs(process: Path) -> bool:
    """A zombie does not."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_worker_outlasts_sigterm_what_it_starts_does_not_and_all_end_with_the_node() -> None:
    node = OwnNode()
    with node.starting():
        worker = services.ConsolePopen(
            [sys.executable, "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: None,
        )
    with worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            for expected in ("started", f"child {-signal.SIGTERM}", "outlasted"):
                assert worker.stdout.readline().strip() == expected
                worker.send_signal(signal.SIGTERM)
                worker.stdin.write("\n")
                worker.stdin.flush()
            child = Path("/proc", worker.stdout.readline().strip())
            assert child.exists()
        finally:
            node.kill()
    assert worker.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while runs(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)
