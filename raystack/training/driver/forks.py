"""The workers of a run in processes, as forks of the agent's process. In: Work. Out: an Ending per attempt.

torch's elastic agent starts and watches them, and gives them torchrun's environment variables; Ray Train's
local mode joins the process group from these. Another attempt is the driver's decision, so torch's agent
restarts nothing.
"""

import importlib
import logging
import os
import time
import traceback
from multiprocessing import active_children
from multiprocessing.connection import Connection
from signal import SIGKILL, Signals
from typing import Any

import torch
from torch._C._distributed_c10d import PrefixStore, TCPStore
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousInfo, RendezvousStoreInfo

from raystack.code.loading import brief
from raystack.errors import PlanError, Problem, RaystackError, TrainingError
from raystack.events import Finished
from raystack.training import loop
from raystack.training.driver import run
from raystack.training.driver.hub import SocketLink
from raystack.training.driver.lifetime import end_with
from raystack.training.driver.processes import Ending, Work
from raystack.training.watchdog.hang import LEFT_S

HERE = "127.0.0.1"
OF_OPTIMIZERS = "torch._dynamo"
"""The module that torch imports with the first optimizer that is made, which takes more than a second."""
LOOK_S = 0.1
"""Seconds between two looks at the workers."""
FAILED = 1
"""Exit status of a worker that has said why it ends."""
END_S = 10
"""Seconds that a worker that was killed may take to end."""


class Forks:
    """The workers of one run, an attempt after the other, until the other end of `driver` is closed."""

    def __init__(self, work: Work, driver: "Connection[Any, Any]") -> None:
        self._work, self._driver = work, driver
        self._spec = loop.WorkerSpec(work.plan, work.code, work.fence)
        _silence()
        importlib.import_module(OF_OPTIMIZERS)
        if work.plan.training.strategy.kind == "zero":
            importlib.import_module("raystack.training.strategy.zero")
            if work.plan.workers.device == "cpu":  # it may ask CUDA for more than a fork survives
                importlib.import_module("deepspeed")

    def attempt(self) -> Ending:
        """Start the workers, and return how they ended."""
        worker = WorkerSpec(
            role="worker",
            local_world_size=self._work.plan.workers.count,
            rdzv_handler=_OneMachine(self._work.plan.run_id),
            entrypoint=_train,
            args=(self._spec, self._work.address, self._driver),
            max_restarts=0,
            monitor_interval=LOOK_S,
        )
        result = _Agent(worker, DefaultLogsSpecs(log_dir=self._work.folder), self._driver).run()
        if result.is_failed():
            return Ending(None, {rank: failure.exitcode for rank, failure in result.failures.items()})
        return Ending(result.return_values[0], {})


class _OneMachine(RendezvousHandler):
    """The meeting of the only agent with itself: a store on a free port, which the workers use as well."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id

    def get_backend(self) -> str:
        return "raystack"

    @property
    def use_agent_store(self) -> bool:
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        self._store = TCPStore(HERE, 0, is_master=True, wait_for_workers=False, multi_tenant=True)
        store = PrefixStore(self._run_id, self._store)
        return RendezvousInfo(store, 0, 1, RendezvousStoreInfo(HERE, self._store.port))

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        pass

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self._run_id

    def shutdown(self) -> bool:
        return True


class _Agent(LocalElasticAgent):
    """torch's agent, which lets the other workers say why they end when one has ended."""

    def __init__(self, spec: WorkerSpec, logs: DefaultLogsSpecs, driver: "Connection[Any, Any]") -> None:
        super().__init__(spec, logs, start_method="fork")
        self._driver = driver

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        ids: dict[int, Any] = super()._start_workers(worker_group)
        started = {child.pid: child for child in active_children()}
        self._processes = {rank: started[pid] for rank, pid in ids.items()}
        return ids

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        self._go_on_if_wanted()
        # A worker that has returned waits for the others, so one that has ended has failed.
        if any(process.exitcode is not None for process in self._processes.values()):
            return self._failed()
        result: RunResult = super()._monitor_workers(worker_group)
        return result

    def _failed(self) -> RunResult:
        # The others lose their connection to it and say so. torch's agent would end them at once.
        deadline = time.monotonic() + LEFT_S
        while time.monotonic() < deadline and any(each.is_alive() for each in self._processes.values()):
            self._go_on_if_wanted()
            time.sleep(LOOK_S)
        failures = {
            rank: ProcessFailure(rank, process.pid or 0, process.exitcode, os.devnull)
            for rank, process in self._processes.items()
            if process.exitcode is not None
        }
        return RunResult(WorkerState.FAILED, failures=failures)

    def _go_on_if_wanted(self) -> None:
        if self._driver.poll():  # it asks for nothing during an attempt, so its end is closed
            raise SystemExit

    def _shutdown(self, death_sig: Signals = SIGKILL, timeout: int = END_S) -> None:
        # torch's own takes no timeout in some versions, and ends nothing else that is used here.
        if self._pcontext:
            self._pcontext.close(SIGKILL, END_S)  # they are deaf to other signals


def _train(spec: loop.WorkerSpec, address: str, driver: "Connection[Any, Any]") -> Finished:
    """Train in this process, a worker; what ends it is told to the coordinator."""
    end_with(os.getppid())
    # As torchrun's: Linux shares a busy machine's cores between sessions, so each worker gets its own share.
    os.setsid()
    driver.close()  # the driver's only with the agent
    with SocketLink(address) as link:
        try:
            return run.in_process(spec, link, _device(spec))
        except BaseException as error:
            link.ask("failed", int(os.environ["RANK"]), _told(error))
            raise SystemExit(FAILED) from None
        finally:
            # Loader processes that an error has left behind. Python would wait for them.
            for child in active_children():
                child.kill()


def _device(spec: loop.WorkerSpec) -> torch.device:
    """Return this worker's device; raise PlanError if the machine has too few."""
    if spec.plan.workers.device == "cpu":
        return torch.device("cpu")
    mine, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if mine >= there:
        count = spec.plan.workers.count
        rule = f"{count} workers need a GPU each, and PyTorch sees {there} on this machine"
        raise PlanError(Problem("resources.workers", rule=rule, got=str(count), remedy="ask for less"))
    return torch.device("cuda", mine)


def _told(error: BaseException) -> RaystackError:
    """Return what a worker raised, as the driver is told."""
    if isinstance(error, RaystackError):
        return error
    traceback.print_exception(error)
    where = f"rank {os.environ['RANK']}"
    if isinstance(error, SystemExit):
        status = f"status {error.code or 0}"
        return TrainingError(Problem(where, rule="the task ended its process", got=status))
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    return TrainingError(Problem(where, rule=brief(f"{type(error).__name__}: {lines[0].strip()}")))


def _silence() -> None:
    """Have torch's agent say nothing: what happens to the workers is told by the driver."""
    logger = logging.getLogger("torch.distributed.elastic")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
