"""The driver's side of a training: TrainPlan -> workers -> Outcome.

The driver alone talks to MLflow and to the terminal; rank 0 sends it events. Ray has to be initialised unless the plan is inline.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import fsspec
import ray
import ray.train.torch
import torch
from ray.train.torch import TorchConfig
from ray.train.v2.api.config import RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import TrainingFailedError

from raystack import config as configs
from raystack.checkpoint import MODEL, Manifest, Store, read_card
from raystack.errors import PlanError, Problem, RaystackError, TrainingError
from raystack.events import Evaluated, Event, Finished, Listener, Started, Stepped, Warned
from raystack.outcome import Outcome
from raystack.plan import TrainPlan
from raystack.registry import Registered, Status, Tracker, open_tracker
from raystack.task import pack
from raystack.training.feed import Feed
from raystack.training.gauges import Gauges
from raystack.training.loop import Job, train
from raystack.training.trainer import Trainer
from raystack.training.world import World

DRAIN_S = 30.0
"""How long the driver waits for an event before it asks again; an event is passed on as it comes."""


def fit(plan: TrainPlan, listen: Listener, *, resume: bool) -> Outcome:
    """Train as planned, record it, register the result, and say where everything is.

    With `resume`, go on from the run's last good checkpoint. Raises TrainingError, PlanError, LaunchError or ConfigError;
    what was written until then stays.
    """
    found = _find(plan, listen) if resume else None
    code = pack(plan.config.task.folder) if plan.config.task.folder else None
    _write(plan.paths.config, configs.dump(plan.config))
    with _tracked(plan, listen) as (tracker, tell):
        job = Job(plan, code, found)
        finished = _inline(job, tell) if plan.workers.inline else _on_ray(job, tell)
        tell(finished)
        registered = _register(plan, finished, tracker)
    outcome = Outcome(
        run_id=plan.run_id,
        step=finished.step,
        metrics=finished.metrics,
        checkpoint=Store(plan.paths.checkpoints).folder(finished.chosen),
        model_version=registered.version if registered else None,
        alias=registered.alias if registered else None,
        look=tracker.look,
        notes=tracker.notes,
    )
    _write(plan.paths.outcome, json.dumps(asdict(outcome), indent=2))
    return outcome


def _find(plan: TrainPlan, listen: Listener) -> Manifest | None:
    found = Store(plan.paths.checkpoints).latest_good()
    for problem in found.skipped:
        listen(Warned(str(problem)))
    if found.manifest is None:
        listen(Warned(f"{plan.run_id} has no checkpoint to go on from: it starts again from its beginning"))
    else:
        _check_same_sequence(plan, found.manifest)
    return found.manifest


def _check_same_sequence(plan: TrainPlan, manifest: Manifest) -> None:
    """A position in the data means the same only under the same seed and global batch."""
    for key, now, then in (
        ("experiment.seed", plan.seed, manifest.seed),
        ("training.batch.global", plan.batch.global_, manifest.global_batch),
        ("training.strategy", plan.training.strategy.kind, manifest.strategy),
    ):
        if now != then:
            raise PlanError(Problem(key, rule=f"a resumed run keeps its {key}, which was {then}", got=str(now), remedy=f"set {key}={then}"))


def _inline(job: Job, tell: Listener) -> Finished:
    """One worker in this process, through Ray Train's local mode."""
    return _fit(job, lambda settings: train(settings["job"], _world(job.plan), tell))


def _on_ray(job: Job, tell: Listener) -> Finished:
    """Ray Train workers; rank 0's events come back through an actor."""
    _await_resources(job.plan)
    feed = ray.remote(num_cpus=0)(Feed).remote()
    with _reading(feed, tell):
        return _fit(job, _Worker(feed))


class _Worker:
    """What runs on each Ray Train worker."""

    def __init__(self, feed: Any) -> None:
        self._feed = feed

    def __call__(self, settings: dict[str, Any]) -> Finished:
        job: Job = settings["job"]
        gauges = Gauges(job.plan.experiment, job.plan.run_id)

        def tell(event: Event) -> None:
            self._feed.put.remote([event])
            gauges.update(event)

        return train(job, _world(job.plan), tell)


def _world(plan: TrainPlan) -> World:
    context = ray.train.get_context()
    device = torch.device("cpu") if plan.workers.device == "cpu" else ray.train.torch.get_device()
    return World(context.get_world_rank(), context.get_world_size(), device)


def _fit(job: Job, worker: Callable[[dict[str, Any]], Finished]) -> Finished:
    plan, workers = job.plan, job.plan.workers
    trainer = Trainer(
        worker,
        owned=plan.config.target.address is None,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend=workers.backend),
        scaling_config=ScalingConfig(
            num_workers=0 if workers.inline else workers.count,
            use_gpu=workers.device == "cuda",
            resources_per_worker=dict(workers.resources),
            placement_strategy=workers.placement,
            accelerator_type=workers.accelerator_type,
        ),
        run_config=RunConfig(
            name=plan.run_id, storage_path=plan.paths.folder.rpartition("/")[0], worker_runtime_env={"env_vars": worker_environment(plan)}
        ),
    )
    try:
        result: Any = trainer.fit()
    except TrainingFailedError as error:
        raise _cause(error) from error
    except SystemExit:
        # Ray Train answers Ctrl-C by leaving the process with status 0.
        raise KeyboardInterrupt from None
    finished = result.return_value
    assert isinstance(finished, Finished)
    return finished


def worker_environment(plan: TrainPlan) -> dict[str, str]:
    """What the workers' processes start with.

    On the CPU activations are allocated and freed in every step. glibc gives such large blocks back to the system each time,
    and gets them again page by page; told to keep them, a step is spared most of its page faults.
    """
    if plan.workers.device != "cpu":
        return {}
    keep = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
    return {name: os.environ.get(name, value) for name, value in keep.items()}


def _cause(error: Any) -> RaystackError:
    """The one failure that explains the others: a worker that lost its peers is a consequence, not a cause."""
    failures = sorted(getattr(error, "worker_failures", {}).items(), key=lambda item: (_is_consequence(item[1]), item[0]))
    for rank, failure in failures:
        if isinstance(failure, RaystackError):
            return failure
        rule = f"{type(failure).__name__}: {str(failure).strip().splitlines()[0]}"
        return TrainingError(Problem(f"rank {rank}", rule=rule, remedy="go on from the last checkpoint with --resume"))
    return TrainingError(Problem("Ray Train", rule=str(getattr(error, "controller_failure", error)).strip().splitlines()[0]))


def _is_consequence(failure: BaseException) -> bool:
    text = str(failure)
    return any(sign in text for sign in ("gloo", "NCCL", "Connection closed by peer", "Connection reset"))


def _await_resources(plan: TrainPlan) -> None:
    """Refuse at once what the cluster cannot place, or wait as long as the config allows."""
    deadline = time.monotonic() + plan.workers.wait_s
    while missing := _missing(plan.workers.needed, ray.cluster_resources()):
        if time.monotonic() >= deadline:
            have = ", ".join(
                f"{amount:g} {name}" for name, amount in sorted(ray.cluster_resources().items()) if name in plan.workers.needed
            )
            raise PlanError(
                Problem(
                    "resources",
                    rule=f"{plan.workers.count} workers need {_amounts(plan.workers.needed)}; the cluster has {have or 'none of it'}",
                    got=f"{_amounts(missing)} missing",
                    remedy="ask for less, or set resources.wait_s if the cluster grows",
                )
            )
        time.sleep(1.0)


def _missing(needed: dict[str, float], available: dict[str, float]) -> dict[str, float]:
    return {name: amount - available.get(name, 0) for name, amount in needed.items() if amount > available.get(name, 0)}


def _amounts(resources: dict[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())


@contextmanager
def _tracked(plan: TrainPlan, listen: Listener) -> Iterator[tuple[Tracker, Listener]]:
    """A tracker for the time of the run, and a listener that serves it and `listen`."""
    tracker = open_tracker(plan)
    status: Status = "FAILED"

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
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        tracker.finish(status)


def _register(plan: TrainPlan, finished: Finished, tracker: Tracker) -> Registered | None:
    if plan.config.registry.model is None:
        return None
    with Store(plan.paths.checkpoints).fetch(finished.chosen, MODEL) as folder:
        return tracker.register(folder, read_card(folder))


@contextmanager
def _reading(feed: Any, tell: Listener) -> Iterator[None]:
    """Pass on what arrives in the feed for the time of the block, and all that is left at its end."""
    stop = threading.Event()

    def read() -> None:
        while True:
            ending = stop.is_set()
            events = ray.get(feed.take.remote(0.0 if ending else DRAIN_S))
            for event in events:
                tell(event)
            if ending:
                return

    reader = threading.Thread(target=read, name="raystack-feed", daemon=True)
    reader.start()
    try:
        yield
    finally:
        stop.set()
        feed.put.remote([])
        reader.join()


def _write(url: str, text: str) -> None:
    filesystem, path = fsspec.core.url_to_fs(url)
    filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
    with filesystem.open(path, "w", encoding="utf-8") as file:
        file.write(text)
