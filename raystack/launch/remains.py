"""What is left of a run whose cluster is gone. In: its name and the storage. Out: status, logs, diagnosis.

Read from the run's folder, `<storage>/runs/<name>`: how its last driver ended, and what was kept of the
cluster (`runs/kept.py`).
"""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from raystack.checkpoint import CheckpointStore, fence
from raystack.checkpoint.fence import Holder
from raystack.errors import LaunchError, Problem, RaystackError
from raystack.kuberay.observe.submitter import of_driver
from raystack.launch.attempts import REMEDIES
from raystack.runs import ending, kept, lease, ledger
from raystack.runs.ending import Ending, EndingStatus
from raystack.status import Diagnosis, LogLine, ObjectKind, Phase, Status
from raystack.storage import Storage

SUBMITTER = "/ray-job-submitter.log"
"""End of the path of a driver's whole log, as Kubernetes has it."""
_PHASES: dict[EndingStatus, Phase] = {
    "succeeded": "succeeded",
    "failed": "failed",
    "paused": "stopped",
    "interrupted": "stopped",
}
LOST = "its driver was lost with its cluster"
GOES_ON = "submit it with --resume: it goes on from its last checkpoint"


@dataclass(frozen=True)
class Remains:
    """A run of which only the folder is left."""

    kind: ObjectKind
    name: str
    folder: str
    """Folder of the run, a local path or an fsspec URL."""
    files: tuple[str, ...]
    """What was kept, as paths below `kept/`."""
    ending: Ending | None
    """How its last driver ended; None if it was killed."""

    def status(self) -> Status:
        """Return the last status; that of the driver's own record counts more than what was seen of it."""
        seen = self._json(kept.STATUS)
        status = Status(self.kind, self.name, "gone", LOST)
        if seen is not None:
            problems = tuple(Problem(**each) for each in seen.pop("problems"))
            status = replace(Status(**{**seen, "problems": problems}), ready=None, wanted=None)
        links = {"folder": self.folder, **({"logs": f"{self.folder}/{kept.FOLDER}"} if self.files else {})}
        status = replace(status, kind=self.kind, name=self.name, links=links, spent=ledger.spent(self.folder))
        if (driver := self._driver()) is not None:
            step, checkpoint = self._reached()
            reason = f"its driver is on this machine: {driver}"
            return replace(status, phase="running", reason=reason, step=step, checkpoint=checkpoint)
        if self.ending is None:
            step, checkpoint = self._reached()
            return replace(status, step=step, checkpoint=checkpoint)
        outcome = self.ending.outcome
        return replace(
            status,
            phase=_PHASES[self.ending.status],
            reason=self.ending.reason,
            exit_code=self.ending.exit_code,
            finished_at=self.ending.finished_at,
            attempt=self.ending.attempt or status.attempt,
            step=outcome.step,
            checkpoint=outcome.checkpoint,
            problems=self.ending.problems,
        )

    def logs(self, *, everything: bool) -> Iterator[LogLine]:
        """Yield the driver's log, or all logs and the events. Raises LaunchError if none was kept."""
        drivers = [file for file in self.files if file.endswith(SUBMITTER)]
        drivers = drivers or [file for file in self.files if file.startswith(kept.DRIVER)]
        shown = [file for file in self.files if file.endswith((".log", ".txt"))] if everything else drivers
        if not shown:
            rule = "its cluster is gone, and no log of it was kept"
            where = f"{self.folder}/{kept.FOLDER}"
            raise LaunchError(Problem(f"{self.kind}/{self.name}", rule=rule, got=where))
        for file in shown:
            lines = iter(self._read(file).splitlines())
            for line in of_driver(lines) if file.endswith(SUBMITTER) else lines:
                yield LogLine(file.rpartition(".")[0] if everything else "driver", line)

    def diagnose(self) -> Diagnosis:
        """Return why it ended, by the driver's record, or else what was found before the cluster went."""
        if (driver := self._driver()) is not None:
            return Diagnosis(
                "nothing is wrong: it runs", "nothing", (f"its driver is on this machine: {driver}",)
            )
        evidence = (f"its cluster is gone; this is from {self.folder}",)
        if self.ending is not None and self.ending.status == "succeeded":
            return Diagnosis("nothing is wrong: it has succeeded", "nothing", evidence)
        found = self._json(kept.DIAGNOSIS)
        if self.ending is not None:
            remedy = REMEDIES.get(self.ending.exit_code, GOES_ON)
            seen = (f"seen of its cluster: {found['cause']}", *found["evidence"]) if found is not None else ()
            return Diagnosis(self.ending.reason, remedy, (*evidence, *seen))
        if found is not None:
            return Diagnosis(found["cause"], found["remedy"], (*found["evidence"], *evidence))
        step, checkpoint = self._reached()
        if checkpoint is None:
            return Diagnosis(LOST, "submit it again: it wrote no checkpoint", evidence)
        return Diagnosis(
            LOST, GOES_ON, (f"its last checkpoint is that of step {step}: {checkpoint}", *evidence)
        )

    def _driver(self) -> Holder | None:
        """Return the driver that holds the run, if it is a process of this machine."""
        try:
            held = fence.read(Storage(self.folder))
        except (RaystackError, OSError):
            return None
        here = held is not None and held.held and held.host == socket.gethostname()
        return held if held is not None and here and not lease.is_dead_here(held) else None

    def _reached(self) -> tuple[int | None, str | None]:
        """Return the newest checkpoint's step and folder, as far as the storage answers."""
        try:
            store = CheckpointStore(f"{self.folder}/checkpoints")
            newest = store.newest()
        except (RaystackError, OSError):
            return None, None
        return newest, store.folder(newest) if newest is not None else None

    def _read(self, name: str) -> str:
        return Storage(self.folder).read_bytes(f"{kept.FOLDER}/{name}").decode("utf-8", "replace")

    def _json(self, name: str) -> dict[str, Any] | None:
        if name not in self.files:
            return None
        values: dict[str, Any] = json.loads(self._read(name))
        return values


def find(kind: ObjectKind, name: str, storage: str | None) -> Remains | None:
    """Return what is left of a run of that name; None if there is nothing, or the storage does not answer.

    `job/NAME` may name an attempt, too.
    """
    if storage is None:
        return None
    run = name if kind != "job" else _run(name)
    folder = f"{storage}/runs/{run}"
    try:
        files = tuple(sorted(Storage(folder).files(kept.FOLDER)))
        last = ending.read(folder)
        if not files and last is None and "config.yaml" not in Storage(folder).names():
            return None
    except (RaystackError, OSError):
        return None
    return Remains(kind, name, folder, files, last)


def _run(name: str) -> str:
    """Return the run of an attempt's id, such as `digits-20261123-094500-3f9a-a1`."""
    before, dash, number = name.rpartition("-a")
    return before if dash and number.isdigit() and before.count("-") >= 3 else name
