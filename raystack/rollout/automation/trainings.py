"""The training of a round: the verb as a user would type it, in a process of its own that outlives this one.

It runs as the attempts of one job do, under the id of the round's run: an attempt goes on where the one
before was lost, takes the run from it if it still lives, and so none is doubled.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from raystack import config as configs
from raystack.config import RunConfig
from raystack.job_context import ATTEMPT, RUN
from raystack.plan.automation import AutomationPlan, overrides
from raystack.plan.naming import run_paths
from raystack.plan.tuning import study_paths
from raystack.ray_internals.variables import JOB_CONFIG
from raystack.rollout.automation.loop import Ended
from raystack.rollout.automation.rounds import Round
from raystack.runs import ending, lease

STOP_S = 60.0
"""Seconds that a training may take to stop, with a checkpoint."""
POLL_S = 0.1
LOG_BYTES = 4000
"""End of a training's output in which its error is looked for."""

_ERROR = re.compile(r"^error: (.+)$", re.MULTILINE)


class Trainings:
    """The trainings of one automation."""

    def __init__(self, plan: AutomationPlan, say: Callable[[str], None]) -> None:
        self._plan, self._say = plan, say
        self._verb = plan.automation.action.verb
        self._place = Path(tempfile.gettempdir(), f"raystack-automation-{os.getuid()}")
        self._child: subprocess.Popen[bytes] | None = None
        self.config("")  # an override that is wrong is refused at the start

    def config(self, run: str) -> RunConfig:
        """Return the config of a run. Raises ConfigError for overrides that are wrong."""
        given = configs.override(self._plan.config, overrides(self._plan, run) if run else self._own)
        # Not an override, as a section that is not set has no keys.
        return given.model_copy(update={"automation": None})

    def start(self, round: Round) -> int:
        """Start an attempt; return its process."""
        files = self._files(round)
        files.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = files / f"{round.run}.yaml"
        path.write_text(configs.dump(self.config(round.run)), encoding="utf-8")
        metadata = {"metadata": {RUN: round.run, ATTEMPT: str(round.attempt)}}
        with open(self._log(round), "ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", f"raystack.{self._verb}", str(path)],
                env={**os.environ, JOB_CONFIG: json.dumps(metadata)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self._child.pid

    def ended(self, round: Round) -> Ended | None:
        """Return how the attempt has ended; None while it goes on."""
        if self._runs(round):
            return None
        last = ending.read(self._folder(round))
        if last is None or last.attempt != round.attempt:
            return self._without_ending(round)
        if last.status == "failed":
            return Ended(last.finished_at, problem=last.reason)
        if last.status != "succeeded":
            return Ended(last.finished_at, problem=f"it was {last.status}", lost=True)
        version = last.outcome.model_version
        if version is None:
            why = "; ".join(last.outcome.notes) or "the run names no version"
            return Ended(last.finished_at, problem=f"no version was registered: {why}")
        shutil.rmtree(self._files(round), ignore_errors=True)
        return Ended(last.finished_at, version)

    def stop(self, round: Round) -> None:
        """Stop it with a checkpoint, or without if it takes too long."""
        if round.pid is None or not self._runs(round):
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.kill(round.pid, number) if number == signal.SIGTERM else os.killpg(round.pid, number)
            deadline = time.monotonic() + STOP_S
            while self._runs(round) and time.monotonic() < deadline:
                time.sleep(POLL_S)

    def _without_ending(self, round: Round) -> Ended:
        """Return the end of a process that has left no record of it in the run's folder."""
        status = self._child.returncode if self._child is not None else None
        if status is not None and 0 < status < 128:
            return Ended(time.time(), problem=self._error(round) or f"it ended with status {status}")
        return Ended(time.time(), problem="its process is gone", lost=True)

    def _runs(self, round: Round) -> bool:
        if self._child is not None and self._child.pid == round.pid:
            return self._child.poll() is None
        if round.pid is not None and self._is_ours(round):
            return True
        return lease.holder(self._folder(round), self._say) is not None

    def _is_ours(self, round: Round) -> bool:
        """Return whether a process is the training, and not one that has its number by now."""
        try:
            words = Path("/proc", str(round.pid), "cmdline").read_bytes()
        except OSError:
            return False
        return f"{round.run}.yaml".encode() in words

    def _error(self, round: Round) -> str:
        try:
            text = self._log(round).read_bytes()[-LOG_BYTES:].decode("utf-8", "replace")
        except OSError:
            return ""
        found = _ERROR.findall(text)
        return str(found[-1]) if found else ""

    def _folder(self, round: Round) -> str:
        storage = self._plan.config.experiment.storage
        paths = study_paths if self._verb == "tune" else run_paths
        return paths(storage, round.run).folder

    def _files(self, round: Round) -> Path:
        return self._place / round.run

    def _log(self, round: Round) -> Path:
        return self._files(round) / "log"

    @property
    def _own(self) -> tuple[str, ...]:
        return self._plan.automation.action.overrides
