"""A run of the tiny task in a driver process of its own, as a user starts it, and the ledger its workers
write.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "tiny" / "config.yaml"
LONGEST_S = 240.0


class Driver:
    """`python -m raystack.train tests/tiny/config.yaml ...`; `lines` is what it has told so far."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "raystack.train", str(TINY), *arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self) -> int:
        """The exit status."""
        status = self.process.wait(LONGEST_S)
        self._reader.join()
        return status

    def until(self, pattern: str, times: int = 1) -> list[str]:
        """Wait for `times` lines that match; returns them."""
        deadline = time.monotonic() + LONGEST_S
        while len(found := [line for line in self.lines if re.search(pattern, line)]) < times:
            assert self.process.poll() is None or self._reader.is_alive(), "".join(self.lines)
            assert time.monotonic() < deadline, "".join(self.lines)
            time.sleep(0.02)
        return found

    @property
    def run(self) -> str:
        """Id of the run."""
        (line, *_) = self.until(r"checkpoint .*/runs/")
        found = re.search(r"/runs/([^/]+)/", line)
        assert found is not None
        return found[1]

    def kill(self) -> None:
        """Without a warning."""
        self.process.kill()
        self.wait()

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.terminate()

    def losses(self) -> dict[int, float]:
        """The reported loss of each step; of a step that was done again, the last."""
        return {
            int(found[1]): float(found[2])
            for line in self.lines
            if (found := re.match(r"step (\d+)/\d+ +loss ([\d.]+)", line))
        }

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self.lines.append(line)


def attempts(ledger: Path, workers: int) -> list[list[Path]]:
    """The pages of each attempt, in order; each attempt has `workers`."""
    pages = sorted(ledger.glob("*.txt"))
    return [pages[start : start + workers] for start in range(0, len(pages), workers)]


def steps(pages: list[Path]) -> list[list[int]]:
    """Sample ids of each step that all workers of an attempt have begun, sorted."""
    each = [[line.split() for line in page.read_text().splitlines()] for page in pages]
    return [sorted(int(index) for part in parts for index in part) for parts in zip(*each, strict=False)]


def pid(page: Path) -> int:
    """The process that writes a page."""
    return int(page.stem.partition("-")[2])


def kill(page: Path) -> None:
    """End a worker without a warning."""
    os.kill(pid(page), signal.SIGKILL)


def alive(ledger: Path) -> bool:
    """Whether a worker that wrote into the ledger still runs."""
    return any(Path("/proc", str(pid(page))).exists() for page in ledger.glob("*.txt"))
