"""A run of the tiny task in a driver process of its own, as a user starts it, and the ledger its workers
write.
"""

import os
import re
import signal
import sys
from pathlib import Path

from processes import ROOT, Command

TINY = ROOT / "tests" / "tiny" / "config.yaml"


class Driver(Command):
    """`python -m raystack.train tests/tiny/config.yaml ...`."""

    def __init__(self, *arguments: str) -> None:
        super().__init__([sys.executable, "-m", "raystack.train", str(TINY), *arguments])

    @property
    def run(self) -> str:
        """Id of the run."""
        (line, *_) = self.until(r"checkpoint .*/runs/")
        found = re.search(r"/runs/([^/]+)/", line)
        assert found is not None
        return found[1]

    def losses(self) -> dict[int, float]:
        """The reported loss of each step; of a step that was done again, the last."""
        return {
            int(found[1]): float(found[2])
            for line in self.lines
            if (found := re.match(r"step (\d+)/\d+ +loss ([\d.]+)", line))
        }


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
