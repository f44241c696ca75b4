"""The training itself: TrainPlan -> workers -> Finished. Nothing is recorded or registered here.

It trains in this process, or on Ray, which then has to be initialised; `processes.py` does it in processes of
this machine. The events of rank 0 arrive at the listener.
"""

import socket
import time
from collections.abc import Callable
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
from raystack.errors import PlanError, Problem, RaystackError
from raystack.events import Event, Finished, Listener
from raystack.interrupts import Stoppable, graceful
from raystack.plan import TrainPlan
from raystack.ray_internals import core
from raystack.ray_internals.train import RunConfig, ScalingConfig, TrainingFailedError
from raystack.training import determinism
from raystack.training.driver import prewarm
from raystack.training.driver.coordinator import RunCoordinator, RunState
from raystack.training.driver.gauges import Gauges
from raystack.training.driver.link import Link, reading
from raystack.training.driver.memory import kept_pages
from raystack.training.driver.recovery import classify, classify_start, controller_lost, final
from raystack.training.driver.trainer import ActorLink, Trainer
from raystack.training.graceful_stop import GracefulStop
from raystack.training.loop import WorkerSpec, train
from raystack.training.watchdog.hang import Heartbeat, Orders
from raystack.training.watchdog.heartbeat import HeartbeatSender
from raystack.training.world import World


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
        world = _world(_device(spec.plan))
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
    link = ActorLink(coordinator)
    with reading(link, tell, gone=RayError), stoppable(lambda: link.send("stop", "terminate")):
        return _ray_train(spec, _Worker(coordinator), coordinator)


class _Worker:
    """The function that runs on each Ray Train worker."""

    def __init__(self, coordinator: Any) -> None:
        self._coordinator = coordinator

    def __call__(self, settings: dict[str, Any]) -> Finished:
        spec: WorkerSpec = settings["spec"]
        link, gauges = ActorLink(self._coordinator), Gauges(spec.plan.experiment, spec.plan.run_id)
        with prewarm.warmed():
            return _work(spec, link, _device(spec.plan), gauges.update)


def in_process(spec: WorkerSpec, link: Link, device: torch.device) -> Finished:
    """Train on this worker, in Ray Train's local mode; the environment has torchrun's variables."""
    return _ray_train(spec, lambda settings: _work(spec, link, device, lambda event: None), None)


def _work(spec: WorkerSpec, link: Link, device: torch.device, show: Listener) -> Finished:
    """Train on this worker of those that Ray Train knows of; `show` gets each event as well."""
    world = _world(device, lambda: int(link.ask("next_attempt")))
    graceful_stop = GracefulStop(world)

    def tell(event: Event) -> None:
        # Not waited for: training must not stall on a busy driver.
        link.send("put", [event])
        show(event)

    def send(heartbeat: Heartbeat) -> Orders:
        orders: Orders = link.ask("heartbeat", heartbeat)
        graceful_stop.requested = orders.stop
        return orders

    with _heartbeats(spec, world, send) as heartbeats:
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


def _device(plan: TrainPlan) -> torch.device:
    """Return this worker's device; raise PlanError if it is to be a GPU, and there is none."""
    if plan.workers.device == "cpu":
        return torch.device("cpu")
    device: torch.device = ray.train.torch.get_device()
    if device.type == "cuda":
        return device
    # Ray Train takes the CPU where PyTorch sees no GPU, which would be a run a hundred times as slow.
    rule = f"the worker trains on a GPU, and PyTorch {torch.__version__} sees none on {socket.gethostname()}"
    remedy = "see nvidia-smi and CUDA_VISIBLE_DEVICES there, or set it to 0 for a training on the CPU"
    got = f"{plan.config.resources.gpus_per_worker:g}"
    raise PlanError(Problem("resources.gpus_per_worker", rule=rule, got=got, remedy=remedy))


def _world(device: torch.device, next_attempt: Callable[[], int] = lambda: 1) -> World:
    context = ray.train.get_context()
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
            num_workers=0 if coordinator is None else counts[0],
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
    return {**kept_pages(plan), **determinism.environment(plan.training), **prewarm.environment(*imports)}


def _cause(error: Any, coordinator: Any | None) -> RaystackError:
    """Return the one failure that explains the others."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        state: RunState | None = ray.get(coordinator.state.remote()) if coordinator is not None else None
        cause = classify(failures, state.alarm if state else None).error
    else:
        cause = classify_start(getattr(error, "controller_failure", error)).error
    return final(cause)


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
