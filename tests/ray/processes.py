"""Processes that the tests start: what they print, with a bound on every wait, and their end."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONGEST_S = 240.0
_RUNNING: "list[subprocess.Popen[str]]" = []


class Command:
    """A command as a user types it; `lines` is what it has printed so far, stdout and stderr in one.

    What a test leaves running ends with the test. It gets Ctrl-C also where the tests run in the background.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            self.process = subprocess.Popen(
                words,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        finally:
            signal.signal(signal.SIGINT, before)
        _RUNNING.append(self.process)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """All that it has printed so far."""
        return "".join(self.lines)

    def wait(self, longest_s: float = LONGEST_S) -> int:
        """The exit status."""
        status = self.process.wait(longest_s)
        self._reader.join(10)
        return status

    def until(self, pattern: str, times: int = 1) -> list[str]:
        """Wait for `times` lines that match; returns them."""
        deadline = time.monotonic() + LONGEST_S
        while len(found := [line for line in self.lines if re.search(pattern, line)]) < times:
            assert self.process.poll() is None or self._reader.is_alive(), self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)
        return found

    def kill(self) -> None:
        """Without a warning."""
        self.process.kill()
        self.wait()

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.terminate()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self.lines.append(line)


def end_commands() -> None:
    """End those that still run."""
    while _RUNNING:
        stop(_RUNNING.pop())


def stop(leader: "subprocess.Popen[str] | subprocess.Popen[bytes]", patience_s: float = 5.0) -> None:
    """End a process that leads a session: SIGTERM, which no shell has made it deaf to, then SIGKILL for
    whatever of the session is left.
    """
    if leader.poll() is None:
        leader.terminate()
        try:
            leader.wait(patience_s)
        except subprocess.TimeoutExpired:
            leader.kill()
            leader.wait(10)
    kill_session(leader.pid)


def kill_session(session: int) -> None:
    """SIGKILL for all of it. Ray's workers have process groups of their own, but the session is one."""
    deadline = time.monotonic() + 10
    while left := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _in(pid, session)]:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert time.monotonic() < deadline, f"{left} do not end"
        time.sleep(0.05)


def _in(pid: int, session: int) -> bool:
    """Whether it runs there; a zombie does not run."""
    try:
        state, _, _, its, *_ = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z" and int(its) == session
