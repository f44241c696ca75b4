"""A training in processes of this machine, without a Ray cluster: TrainPlan -> Finished.

The driver starts one process, the agent, which imports what a training needs while the driver prepares the
run, and forks the workers: torch's elastic agent starts each attempt there. The coordinator is in the
driver's process. What follows a failure is decided here, by the same rules as in Ray Train's controller
(docs/decisions/0017-processes.md). PyTorch and Ray are not imported here.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from raystack.checkpoint import CheckpointStore
from raystack.checkpoint.fence import Fence
from raystack.code.archive import pack
from raystack.errors import Problem, TrainingError
from raystack.events import Finished, Listener
from raystack.interrupts import Stoppable, deaf, graceful
from raystack.plan import TrainPlan
from raystack.training.driver.coordinator import RunState
from raystack.training.driver.hub import Hub
from raystack.training.driver.link import reading
from raystack.training.driver.memory import kept_pages
from raystack.training.driver.recovery import Cause, DiedError, classify, final, told_to_stop
from raystack.training.driver.retries import Retries

PAUSE_S = 0.1
"""Seconds between two looks for a request to stop, while an attempt may not begin yet."""


@dataclass(frozen=True)
class Work:
    """The message from the driver to the agent: what its workers are to do."""

    plan: TrainPlan
    code: bytes | None
    """Archive of the task's folder; None for an installed package."""
    fence: Fence | None
    address: str
    """Where the coordinator answers."""
    folder: str
    """A folder for the files of torch's agent, which ends with the run."""


@dataclass(frozen=True)
class Ending:
    """The agent's answer: how an attempt ended."""

    finished: Finished | None
    """What rank 0 returned; None if a worker failed."""
    statuses: Mapping[int, int]
    """Exit status of each worker that ended by itself, by rank; a signal's number is negative."""


def run(
    plan: TrainPlan,
    listen: Listener,
    fence: Fence | None = None,
    *,
    stoppable: Stoppable = graceful,
    verbose: bool = False,
) -> Finished:
    """Train as planned in processes of this machine; otherwise as `run.run`.

    `verbose`: what the workers print is shown on stderr. It is in a file otherwise.
    """
    code = pack(plan.config.task.folder) if plan.config.task.folder else None
    with Hub(plan.training.watchdog) as hub, reading(hub, listen, gone=OSError):
        work = Work(plan, code, fence, hub.address, str(hub.folder))
        with stoppable(lambda: hub.send("stop", "terminate")), _Agent(work, verbose=verbose) as agent:
            return _attempts(plan, hub, agent)


def _attempts(plan: TrainPlan, hub: Hub, agent: "_Agent") -> Finished:
    """Train until the end, from one attempt to the next; raise the error that ends the run."""
    retries = Retries(hub, plan.training.faults, CheckpointStore(plan.paths.checkpoints))
    while True:
        _wait_to_begin(hub)
        died: dict[int, BaseException]
        try:
            ending = agent.attempt()
            if ending.finished is not None:
                return ending.finished
            died = {rank: _died(rank, status, agent.log) for rank, status in ending.statuses.items()}
        except (EOFError, OSError):
            died = {0: agent.died()}
        state: RunState = hub.ask("state")
        # What a worker has said explains more than the status of its process.
        cause = classify({**died, **hub.ask("failures")}, state.alarm)
        if not retries.again(cause, state):
            raise final(cause.error)


def _wait_to_begin(hub: Hub) -> None:
    """Return when the next attempt may begin; raise PausedError if the run is told to stop."""
    while True:
        state: RunState = hub.ask("state")
        if state.stop == "terminate":
            raise told_to_stop()
        if state.hold_s <= 0:
            return
        time.sleep(min(PAUSE_S, state.hold_s))


def _died(rank: int, status: int, log: Path) -> DiedError:
    """Return the error of a worker whose process ended with this status."""
    # SIGKILL is what the system sends if it has run out of memory, and tells nothing more.
    how = signal.Signals(-status).name if status < 0 else f"status {status}"
    got = None if status == -signal.SIGKILL else how
    problem = Problem(f"rank {rank}", rule="its process is gone", got=got, remedy=f"it may say why in {log}")
    return DiedError(Cause("lost", TrainingError(problem)))


class _Agent:
    """The process that starts the workers: started for the first attempt, and again if it is lost."""

    def __init__(self, work: Work, *, verbose: bool) -> None:
        self._work, self._verbose = work, verbose
        self._process: subprocess.Popen[bytes] | None = None
        self.log = Path(tempfile.gettempdir(), f"raystack-{os.getuid()}", "logs", f"{work.plan.run_id}.txt")
        """The file with what the workers print."""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:  # Ctrl-C, which nothing that is started outlives
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def attempt(self) -> Ending:
        """Have it start the workers, and return how they ended; raise OSError or EOFError if it is lost."""
        if self._process is None:
            self._start()
        self._line.send(None)
        ending: Ending = self._line.recv()
        return ending

    def died(self) -> DiedError:
        """Take note that the agent is gone, and return the error of its workers, which have ended with it."""
        status = self._end()
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        rule, remedy = "the process that starts the workers is gone", f"it may say why in {self.log}"
        return DiedError(Cause("lost", TrainingError(Problem("run", rule=rule, got=how, remedy=remedy))))

    def _start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._line, theirs = _pipe()
        words = ("-P", "-m", "raystack.training.driver.agent", str(theirs.fileno()), str(os.getpid()))
        # In a group of its own and deaf from its first moment on: what is for the driver's group is for the
        # driver, which ends it.
        with theirs, self.log.open("ab") as log, deaf():
            output = 2 if self._verbose else log
            self._process = subprocess.Popen(
                [sys.executable, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(theirs.fileno(),),
                env=_environment(self._work.plan),
                process_group=0,
            )
        with suppress(OSError):  # it has gone already, which its first attempt shows
            self._line.send(self._work)

    def _end(self) -> int:
        """End it, and with it the workers; return its status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        # The kernel ends the workers with it. Nothing is lost that a checkpoint has not got.
        process.kill()
        self._line.close()
        return process.wait()


def _pipe() -> "tuple[Connection[Any, Any], Connection[Any, Any]]":
    return Pipe()


def _environment(plan: TrainPlan) -> dict[str, str]:
    """Return the environment of the agent, which the workers inherit."""
    own = {
        # As the workers of a cluster, they import from where this process does.
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        **kept_pages(plan),
        # torch's agent would end the workers at a signal that is for the driver.
        "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGQUIT",
        # Asking CUDA for its devices in the agent would leave its forks none.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
    if plan.workers.device == "cpu":
        own["CUDA_VISIBLE_DEVICES"] = ""  # Ray Train's local mode takes NCCL wherever it sees a GPU
    # All workers are on this machine, and a laptop's other interfaces come and go.
    return {"GLOO_SOCKET_IFNAME": "lo", **os.environ, **own}
