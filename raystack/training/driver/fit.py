"""The driver's side of a training: TrainPlan -> workers -> Outcome.

The driver alone talks to MLflow and to the terminal; rank 0 sends it events. Ray has to be initialised unless
the plan is inline.
"""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any

import ray
import ray.train.torch
import torch
from ray.exceptions import RayError
from ray.train.torch import TorchConfig
from ray.train.v2.api.config import RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import TrainingFailedError

from raystack import config as configs
from raystack.checkpoint import MODEL, CheckpointStore, read_card
from raystack.checkpoint.fence import Fence
from raystack.code.archive import pack, unpack
from raystack.config.target import Local
from raystack.errors import ConfigError, PausedError, PlanError, Problem, RaystackError, TrainingError
from raystack.events import Evaluated, Event, Finished, Listener, Started, Stepped, Warned
from raystack.outcome import Outcome
from raystack.plan import TrainPlan
from raystack.registry import Registered, RunStatus, Tracker, open_tracker
from raystack.storage import Storage
from raystack.training.driver import prewarm
from raystack.training.driver.coordinator import RunCoordinator, RunState
from raystack.training.driver.gauges import Gauges
from raystack.training.driver.recovery import classify, classify_start
from raystack.training.driver.trainer import Trainer
from raystack.training.graceful_stop import GracefulStop
from raystack.training.loop import WorkerSpec, train
from raystack.training.watchdog.hang import Heartbeat, Orders
from raystack.training.watchdog.heartbeat import HeartbeatSender
from raystack.training.world import World

DRAIN_S = 5.0
"""How long the driver waits for an event before it asks again; an event is passed on as it comes."""

KEEP_PAGES = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}
"""Has glibc keep the memory of a process that frees it."""


def fit(plan: TrainPlan, listen: Listener, *, resume: bool, fence: Fence | None = None) -> Outcome:
    """Train as planned, record it, register the result, and say where everything is.

    A run that has checkpoints goes on from the newest good one; `resume` says that it was expected to have
    one. `fence` is asked before each publication whether the run is still this driver's. Raises
    TrainingError, PlanError, LaunchError or ConfigError; PausedError where SIGTERM ended the run with a
    checkpoint. What was written until then stays.
    """
    if resume and not CheckpointStore(plan.paths.checkpoints).manifests():
        listen(Warned(f"{plan.run_id} has no checkpoint to go on from: it starts again from its beginning"))
    code = pack(plan.config.task.folder) if plan.config.task.folder else None
    _write(plan.paths.config, configs.dump(plan.config))
    with _tracked(plan, listen) as (tracker, tell):
        job = WorkerSpec(plan, code, fence)
        finished = _inline(job, tell) if plan.workers.inline else _on_ray(job, tell)
        if fence is not None:
            fence.check()
        tell(finished)
        registered = _register(plan, finished, tracker)
    outcome = Outcome(
        run_id=plan.run_id,
        step=finished.step,
        metrics=finished.metrics,
        checkpoint=CheckpointStore(plan.paths.checkpoints).folder(finished.chosen),
        model_version=registered.version if registered else None,
        alias=registered.alias if registered else None,
        links=tracker.links,
        notes=tracker.notes,
    )
    _write(plan.paths.outcome, json.dumps(asdict(outcome), indent=2))
    return outcome


def _inline(job: WorkerSpec, tell: Listener) -> Finished:
    """One worker in this process, through Ray Train's local mode. Its pulse is not started: nobody watches it
    but the user.
    """

    def work(settings: dict[str, Any]) -> Finished:
        world = _world(job.plan)
        graceful_stop = GracefulStop(world)
        with _on_sigterm(lambda: setattr(graceful_stop, "requested", "terminate")):
            return train(job, world, tell, graceful_stop, _pulse(job, world, lambda heartbeat: Orders()))

    return _fit(job, work, None)


def _on_ray(job: WorkerSpec, tell: Listener) -> Finished:
    """Ray Train workers, which meet the driver at the hub: on the driver's node, because it lives as long as
    the driver.
    """
    _await_resources(job.plan)
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    coordinator: Any = ray.remote(num_cpus=0, label_selector=here)(RunCoordinator).remote(
        job.plan.training.watchdog
    )
    with _reading(coordinator, tell), _on_sigterm(lambda: coordinator.stop.remote("terminate")):
        return _fit(job, _Worker(coordinator), coordinator)


class _Worker:
    """What runs on each Ray Train worker."""

    def __init__(self, coordinator: Any) -> None:
        self._hub = coordinator

    def __call__(self, settings: dict[str, Any]) -> Finished:
        job: WorkerSpec = settings["job"]
        world = _world(job.plan, lambda: int(ray.get(self._hub.next_attempt.remote())))
        gauges = Gauges(job.plan.experiment, job.plan.run_id)
        graceful_stop = GracefulStop(world)

        def tell(event: Event) -> None:
            self._hub.put.remote([event])
            gauges.update(event)

        def send(heartbeat: Heartbeat) -> Orders:
            orders: Orders = ray.get(self._hub.heartbeat.remote(heartbeat))
            graceful_stop.requested = orders.stop
            return orders

        with _pulse(job, world, send) as heartbeats, prewarm.warmed():
            return train(job, world, tell, graceful_stop, heartbeats)


def _pulse(job: WorkerSpec, world: World, send: Callable[[Heartbeat], Orders]) -> HeartbeatSender:
    folder = unpack(job.code) if job.code is not None else None
    return HeartbeatSender(
        send,
        attempt=world.attempt,
        rank=world.rank,
        world=world.size,
        node=socket.gethostname(),
        folder=folder,
    )


def _world(plan: TrainPlan, next_attempt: Callable[[], int] = lambda: 1) -> World:
    context = ray.train.get_context()
    device = torch.device("cpu") if plan.workers.device == "cpu" else ray.train.torch.get_device()
    return World.join(context.get_world_rank(), context.get_world_size(), device, next_attempt)


def _fit(job: WorkerSpec, worker: Callable[[dict[str, Any]], Finished], coordinator: Any | None) -> Finished:
    plan, workers = job.plan, job.plan.workers
    counts = tuple(batch.workers for batch in plan.batches)
    trainer = Trainer(
        worker,
        owned=isinstance(plan.config.target, Local) and plan.config.target.address is None,
        coordinator=coordinator,
        faults=plan.training.faults,
        counts=counts,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend=workers.backend),
        scaling_config=ScalingConfig(
            num_workers=0 if workers.inline else counts[0],
            use_gpu=workers.device == "cuda",
            resources_per_worker=dict(workers.resources),
            placement_strategy=workers.placement,
            accelerator_type=workers.accelerator_type,
        ),
        run_config=RunConfig(
            name=plan.run_id,
            storage_path=plan.paths.folder.rpartition("/")[0],
            worker_runtime_env={"env_vars": worker_environment(plan)},
        ),
    )
    try:
        result: Any = trainer.fit()
    except TrainingFailedError as error:
        raise _cause(error, coordinator) from error
    except RayError as error:
        first = str(error).strip().splitlines()[0]
        raise TrainingError(
            Problem("Ray", rule=f"the run's controller is gone: {first}", remedy="go on with --resume")
        ) from error
    finished = result.return_value
    assert isinstance(finished, Finished)
    return finished


@contextmanager
def _on_sigterm(ask: Callable[[], Any]) -> Iterator[None]:
    """SIGTERM asks the run to stop at a step with a checkpoint; a second one ends it at once. Ray's own
    handler is put aside.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        ask()

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def worker_environment(plan: TrainPlan) -> dict[str, str]:
    """What the workers' processes start with.

    On the CPU activations are allocated and freed in every step. glibc gives such large blocks back to the
    system each time, and gets them again page by page; told to keep them, a step is spared most of its page
    faults. Ray Train's training thread is not the main one, and of the arenas that glibc has for other
    threads, none keeps more than 64 MiB.
    """
    imports = (
        ("raystack.training.strategy.zero", "deepspeed") if plan.training.strategy.kind == "zero" else ()
    )
    keep = KEEP_PAGES if plan.workers.device == "cpu" else {}
    return {
        **{name: os.environ.get(name, value) for name, value in keep.items()},
        **prewarm.environment(*imports),
    }


def _cause(error: Any, coordinator: Any | None) -> RaystackError:
    """The one failure that explains the others."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        state: RunState | None = ray.get(coordinator.state.remote()) if coordinator is not None else None
        cause = classify(failures, state.alarm if state else None).error
    else:
        cause = classify_start(getattr(error, "controller_failure", error)).error
    if isinstance(cause, (ConfigError, PlanError, PausedError)) or any(
        "--resume" in str(problem) for problem in cause.problems
    ):
        return cause
    return type(cause)(
        [replace(problem, remedy=_and_resume(problem.remedy)) for problem in cause.problems], cause.trace
    )


def _and_resume(remedy: str | None) -> str:
    return f"{remedy}; go on with --resume" if remedy else "go on with --resume"


def _await_resources(plan: TrainPlan) -> None:
    """Refuse at once what the cluster cannot place, or wait as long as the config allows."""
    deadline = time.monotonic() + plan.workers.wait_s
    while missing := _missing(plan.workers.needed, ray.cluster_resources()):
        if time.monotonic() >= deadline:
            have = ", ".join(
                f"{amount:g} {name}"
                for name, amount in sorted(ray.cluster_resources().items())
                if name in plan.workers.needed
            )
            raise PlanError(
                Problem(
                    "resources",
                    rule=(
                        f"{plan.workers.least} workers need {_amounts(plan.workers.needed)}; the cluster has"
                        f" {have or 'none of it'}"
                    ),
                    got=f"{_amounts(missing)} missing",
                    remedy="ask for less, or set resources.wait_s if the cluster grows",
                )
            )
        time.sleep(1.0)


def _missing(needed: dict[str, float], available: dict[str, float]) -> dict[str, float]:
    return {
        name: amount - available.get(name, 0)
        for name, amount in needed.items()
        if amount > available.get(name, 0)
    }


def _amounts(resources: dict[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())


@contextmanager
def _tracked(plan: TrainPlan, listen: Listener) -> Iterator[tuple[Tracker, Listener]]:
    """A tracker for the time of the run, and a listener that serves it and `listen`."""
    tracker = open_tracker(plan)
    status: RunStatus = "FAILED"

    def tell(event: Event) -> None:
        if isinstance(event, (Stepped, Evaluated)):
            tracker.log_metrics(event.step, event.metrics)
        elif isinstance(event, Started):
            tracker.start()
            tracker.log_metrics(event.first_step, {"model/parameters": float(event.parameters)})
        listen(event)

    try:
        yield tracker, tell
        status = "FINISHED"
    except (KeyboardInterrupt, PausedError):
        status = "KILLED"
        raise
    finally:
        tracker.finish(status)


def _register(plan: TrainPlan, finished: Finished, tracker: Tracker) -> Registered | None:
    if plan.config.registry.model is None:
        return None
    with CheckpointStore(plan.paths.checkpoints).fetch(finished.chosen, MODEL) as folder:
        return tracker.register(folder, read_card(folder))


@contextmanager
def _reading(coordinator: Any, tell: Listener) -> Iterator[None]:
    """Pass on what arrives at the hub for the time of the block, and all that is left at its end."""
    stop = threading.Event()

    def read() -> None:
        while True:
            ending = stop.is_set()
            events = ray.get(coordinator.take.remote(0.0 if ending else DRAIN_S))
            for event in events:
                tell(event)
            if ending:
                return

    def read_on() -> None:
        # Where the hub is gone the run ends, and says why.
        with suppress(RayError):
            read()

    reader = threading.Thread(target=read_on, name="raystack-hub", daemon=True)
    reader.start()
    try:
        yield
    finally:
        stop.set()
        coordinator.put.remote([])
        reader.join()


def _write(url: str, text: str) -> None:
    folder, _, name = url.rpartition("/")
    storage = Storage(folder)
    if storage.local:
        storage.make("")
    storage.write(name, text)
