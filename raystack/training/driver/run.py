"""The training itself: TrainPlan -> workers -> Finished. Nothing is recorded or registered here.

Ray has to be initialised unless the plan is inline. The events of rank 0 arrive at the listener.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import Any

import ray
import ray.train.torch
import torch
from ray.exceptions import RayError
from ray.train.torch import TorchConfig

from raystack.checkpoint import CheckpointStore
from raystack.checkpoint.fence import Fence
from raystack.code.archive import pack, unpack
from raystack.config.target import Local
from raystack.errors import (
    ConfigError,
    PausedError,
    PlanError,
    Problem,
    RaystackError,
    SupersededError,
)
from raystack.events import Event, Finished, Listener
from raystack.interrupts import graceful
from raystack.plan import TrainPlan
from raystack.ray_internals import core
from raystack.ray_internals.train import RunConfig, ScalingConfig, TrainingFailedError
from raystack.training.driver import prewarm
from raystack.training.driver.coordinator import RunCoordinator, RunState
from raystack.training.driver.gauges import Gauges
from raystack.training.driver.recovery import classify, classify_start, controller_lost
from raystack.training.driver.trainer import Trainer
from raystack.training.graceful_stop import GracefulStop
from raystack.training.loop import WorkerSpec, train
from raystack.training.watchdog.hang import Heartbeat, Orders
from raystack.training.watchdog.heartbeat import HeartbeatSender
from raystack.training.world import World

DRAIN_S = 5.0
"""Seconds that one request for events waits at most; an event is passed on as soon as it arrives."""

KEEP_PAGES = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}
"""Variables that make glibc keep the memory that a process frees."""


Stoppable = Callable[[Callable[[], Any]], AbstractContextManager[None]]
"""Makes its argument, which asks for a stop with a checkpoint, available during the block."""


def run(
    plan: TrainPlan,
    listen: Listener,
    fence: Fence | None = None,
    *,
    stoppable: Stoppable = graceful,
    exports: bool = True,
) -> Finished:
    """Train as planned, from the run's newest good checkpoint if it has one; register nothing.

    `listen` gets every event but `Finished`, which is returned. `fence` checks before each publication that
    the run is still this driver's; None if no other driver can take it over. `stoppable` says who may ask
    for a stop: by default SIGTERM. `exports`: the chosen checkpoint gets the full weights. Raises
    TrainingError, PlanError, LaunchError or ConfigError, and PausedError if a stop was asked for. Checkpoints
    that were written until then stay.
    """
    code = pack(plan.config.task.folder) if plan.config.task.folder else None
    spec = WorkerSpec(plan, code, fence, exports)
    return _inline(spec, listen, stoppable) if plan.workers.inline else _on_ray(spec, listen, stoppable)


def _inline(spec: WorkerSpec, tell: Listener, stoppable: Stoppable) -> Finished:
    """Train with one worker in this process, in Ray Train's local mode and without a watchdog."""

    def work(settings: dict[str, Any]) -> Finished:
        world = _world(spec.plan)
        graceful_stop = GracefulStop(world)
        with stoppable(lambda: setattr(graceful_stop, "requested", "terminate")):
            return train(
                spec, world, tell, graceful_stop, _heartbeats(spec, world, lambda heartbeat: Orders())
            )

    return _ray_train(spec, work, None)


def _on_ray(spec: WorkerSpec, tell: Listener, stoppable: Stoppable) -> Finished:
    """Train with Ray Train workers, which talk to the driver through the coordinator."""
    _await_resources(spec.plan)
    # On the driver's node: the coordinator has to live as long as the driver, and other nodes may go away.
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    coordinator: Any = ray.remote(num_cpus=0, label_selector=here)(RunCoordinator).remote(
        spec.plan.training.watchdog
    )
    with _reading(coordinator, tell), stoppable(lambda: coordinator.stop.remote("terminate")):
        return _ray_train(spec, _Worker(coordinator), coordinator)


class _Worker:
    """The function that runs on each Ray Train worker."""

    def __init__(self, coordinator: Any) -> None:
        self._coordinator = coordinator

    def __call__(self, settings: dict[str, Any]) -> Finished:
        spec: WorkerSpec = settings["spec"]
        world = _world(spec.plan, lambda: int(ray.get(self._coordinator.next_attempt.remote())))
        gauges = Gauges(spec.plan.experiment, spec.plan.run_id)
        graceful_stop = GracefulStop(world)

        def tell(event: Event) -> None:
            # Not waited for: training must not stall on a busy driver.
            self._coordinator.put.remote([event])
            gauges.update(event)

        def send(heartbeat: Heartbeat) -> Orders:
            orders: Orders = ray.get(self._coordinator.heartbeat.remote(heartbeat))
            graceful_stop.requested = orders.stop
            return orders

        with _heartbeats(spec, world, send) as heartbeats, prewarm.warmed():
            return train(spec, world, tell, graceful_stop, heartbeats)


def _heartbeats(spec: WorkerSpec, world: World, send: Callable[[Heartbeat], Orders]) -> HeartbeatSender:
    folder = unpack(spec.code) if spec.code is not None else None
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


def _ray_train(
    spec: WorkerSpec, worker: Callable[[dict[str, Any]], Finished], coordinator: Any | None
) -> Finished:
    plan, workers = spec.plan, spec.plan.workers
    counts = tuple(batch.workers for batch in plan.batches)
    trainer = Trainer(
        worker,
        owned=isinstance(plan.config.target, Local) and plan.config.target.address is None,
        coordinator=coordinator,
        faults=plan.training.faults,
        counts=counts,
        store=CheckpointStore(plan.paths.checkpoints),
        settings=plan.config.model_dump(mode="json") if coordinator and core.has_dashboard() else None,
        train_loop_config={"spec": spec},
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
        # Ray Train's controller is an actor; when it dies, `fit` raises what Ray Core raises of an actor.
        raise controller_lost(error) from error
    finished = result.return_value
    assert isinstance(finished, Finished)
    return finished


def worker_environment(plan: TrainPlan) -> dict[str, str]:
    """Return the environment variables that the workers' processes start with."""
    imports = (
        ("raystack.training.strategy.zero", "deepspeed") if plan.training.strategy.kind == "zero" else ()
    )
    # Each step on the CPU allocates and frees its activations. glibc returns such large blocks to the system
    # and gets them back page by page; keeping them saves most page faults of a step. There is one arena,
    # because Ray Train does not train in the main thread, and glibc's arenas for other threads keep at most
    # 64 MiB each (docs/decisions/0005-steps-on-the-cpu.md).
    keep = KEEP_PAGES if plan.workers.device == "cpu" else {}
    return {
        # The user's own settings of malloc win.
        **{name: os.environ.get(name, value) for name, value in keep.items()},
        **prewarm.environment(*imports),
    }


def _cause(error: Any, coordinator: Any | None) -> RaystackError:
    """Return the one failure that explains the others."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        state: RunState | None = ray.get(coordinator.state.remote()) if coordinator is not None else None
        cause = classify(failures, state.alarm if state else None).error
    else:
        cause = classify_start(getattr(error, "controller_failure", error)).error
    if isinstance(cause, (ConfigError, PlanError, PausedError, SupersededError)):
        return cause  # the config or the request is to be changed first, or the remedy says how to go on
    return type(cause)(
        [replace(problem, remedy=_and_resume(problem.remedy)) for problem in cause.problems], cause.trace
    )


def _and_resume(remedy: str | None) -> str:
    return f"{remedy}; go on with --resume" if remedy else "go on with --resume"


def _await_resources(plan: TrainPlan) -> None:
    """Wait for the workers' resources as long as the config allows; raise PlanError if they are missing."""
    # Ray would keep a placement group that cannot be placed pending for ever.
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
def _reading(coordinator: Any, tell: Listener) -> Iterator[None]:
    """Pass on the coordinator's events during the block, and those that are left at its end."""
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
        # If the coordinator is gone, the run ends with an error of its own.
        with suppress(RayError):
            read()

    reader = threading.Thread(target=read_on, name="raystack-events", daemon=True)
    reader.start()
    try:
        yield
    finally:
        stop.set()
        # An empty batch wakes up a reader that waits up to DRAIN_S for the next event.
        coordinator.put.remote([])
        reader.join()
