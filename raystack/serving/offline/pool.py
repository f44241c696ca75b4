"""Many parts at once: Ray Data has a pool of actors do them, each with a model of its own."""

import pickle
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from raystack.errors import LaunchError, Problem, RaystackError, ServingError
from raystack.plan.prediction import PredictWorkers
from raystack.serving.offline.output import Done
from raystack.serving.offline.part import Job, Worker

RESTARTS = 3
"""How often a worker that was lost is started again, and with it the part that it did."""
POLL_S = 0.5


class _Actor:
    """A worker of the pool. What it raises is an answer: Ray would wrap it, or try again."""

    def __init__(self, job: Job) -> None:
        self._worker = Worker(job)

    def __call__(self, parts: dict[str, Any]) -> dict[str, Any]:
        answers = []
        for part in parts["part"]:
            try:
                answers.append(pickle.dumps(self._worker.do(int(part))))
            except RaystackError as error:
                answers.append(pickle.dumps(error))
        return {"answer": np.array(answers, object)}


def each_done(job: Job, parts: Sequence[int], workers: PredictWorkers) -> Iterator[Done]:
    """Have Ray do the parts, on the cluster that this process is connected to; yield each when it is done.

    Raises what a worker raised, LaunchError if the cluster has no room for the workers, ServingError if they
    are lost again and again.
    """
    _wait_for_resources(workers)
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    most = min(workers.most, len(parts))
    todo = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
    answers = todo.map_batches(
        _Actor,
        fn_constructor_args=(job,),
        batch_size=1,
        batch_format="numpy",
        compute=ActorPoolStrategy(
            min_size=min(workers.least, most), max_size=most, max_tasks_in_flight_per_actor=2
        ),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus or None,
        resources=dict(workers.custom) or None,
        accelerator_type=workers.accelerator_type,
        max_restarts=RESTARTS,
        max_task_retries=RESTARTS,
    )
    try:
        for row in answers.iter_rows():
            answer = pickle.loads(row["answer"])
            if isinstance(answer, RaystackError):
                raise answer
            yield answer
    except ray.exceptions.RayError as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        rule = f"a worker was lost {RESTARTS + 1} times, or cannot start: {first}"
        raise ServingError(
            Problem("predict", rule=rule, remedy="run with -v, or with resources=inline")
        ) from error


def _wait_for_resources(workers: PredictWorkers) -> None:
    """Wait for what the fewest workers need, up to `resources.wait_s`; Ray Data would wait forever."""
    until = time.monotonic() + workers.wait_s
    while True:
        there = ray.cluster_resources()
        needed = {name: amount * workers.least for name, amount in workers.each.items()}
        lacking = [name for name, amount in needed.items() if amount > there.get(name, 0)]
        if not lacking:
            return
        if time.monotonic() >= until:
            name = lacking[0]
            rule = f"the cluster has {there.get(name, 0):g} {name} in all"
            got = f"{workers.least} workers that need {needed[name]:g}"
            remedy = "ask for fewer, or set resources.wait_s"
            raise LaunchError(Problem("resources.workers", rule=rule, got=got, remedy=remedy))
        time.sleep(POLL_S)
