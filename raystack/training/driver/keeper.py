"""What is kept of a run while it goes on: its plan, its metrics, the stacks of a hang, the log of its job.

In: events, and the file that the job's output goes to. Out: `plan.json`, `metrics/<driver>-<part>.jsonl`,
`kept/stacks/` and `kept/driver/<job>.log` in the run's folder, written by a thread of the meter, so that no
step waits for the store.
"""

import os
import stat
import threading
import time
from pathlib import Path

from raystack import job_context, strict_json
from raystack.checkpoint.fence import Fence
from raystack.events import Alarm, Evaluated, Event, Stepped
from raystack.plan import TrainPlan
from raystack.plan.describe import as_json
from raystack.runs import kept
from raystack.storage import Storage

PLAN, METRICS = "plan.json", "metrics"
PART_LINES = 2000
"""Lines of a file of metrics: a file is written whole each time, so a long run has several."""
LOG_BYTES = 512 * 2**10
"""Bytes of the log's end that are kept, for the same reason."""


class Keeper:
    """A listener of the run's events."""

    def __init__(self, plan: TrainPlan, fence: Fence) -> None:
        self._plan, self._driver = plan, fence.holder.number
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._part, self._kept = 1, 0
        self._stacks: dict[str, str] = {}
        self._planned = False
        self._job, self._log, self._logged = job_context.submission(), _output(), 0

    def __call__(self, event: Event) -> None:
        """See metrics, and the stacks of workers that hang."""
        if isinstance(event, (Stepped, Evaluated)):
            values = {"step": event.step, "at": round(time.time(), 3), **event.metrics}
            with self._lock:
                self._lines.append(strict_json.dumps(values))
        elif isinstance(event, Alarm):
            stacks = "".join(f"rank {rank}\n{stack}\n\n" for rank, stack in sorted(event.stacks.items()))
            with self._lock:
                self._stacks[f"step-{event.step}.txt"] = f"{event.text}\n\n{stacks}"

    def flush(self, storage: Storage) -> None:
        """Write what is new. Raises the store's errors; then it is written the next time."""
        if not self._planned:
            storage.write(PLAN, as_json(self._plan))
            self._planned = True
        with self._lock:
            lines, stacks = list(self._lines), dict(self._stacks)
        for name, text in stacks.items():
            _write(storage, f"{kept.FOLDER}/stacks/{name}", text)
            self._stacks.pop(name, None)  # at the end a write that hangs may still be at it
        while len(lines) > PART_LINES:
            self._write_part(storage, lines[:PART_LINES])
            lines = lines[PART_LINES:]
            with self._lock:
                del self._lines[:PART_LINES]
            self._part, self._kept = self._part + 1, 0
        if len(lines) > self._kept:
            self._write_part(storage, lines)
            self._kept = len(lines)
        if self._job is not None and self._log is not None:
            self._write_log(storage, self._job, self._log)

    def _write_part(self, storage: Storage, lines: list[str]) -> None:
        name = f"{METRICS}/{self._driver:04d}-{self._part:04d}.jsonl"
        _write(storage, name, "".join(f"{line}\n" for line in lines))

    def _write_log(self, storage: Storage, job: str, log: Path) -> None:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size == self._logged:
                return
            file.seek(max(0, size - LOG_BYTES))
            text = file.read().decode("utf-8", "replace")
        _write(storage, f"{kept.FOLDER}/{kept.DRIVER}{job}.log", text)
        self._logged = size


def _output() -> Path | None:
    """Return the file that this process writes its output to; None if it is a terminal or a pipe."""
    try:
        return Path(os.readlink("/proc/self/fd/1")) if stat.S_ISREG(os.fstat(1).st_mode) else None
    except OSError:
        return None


def _write(storage: Storage, name: str, text: str) -> None:
    if storage.local:
        storage.make(name.rpartition("/")[0])
    storage.write(name, text)
