"""Many parts at once: Ray Data has a pool of actors do them, each with a model of its own."""

import logging
import pickle
import time
import warnings
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import ray
import ray.data
from ray.data import ActorPoolStrategy

from raystack.errors import LaunchError, Problem, RaystackError, ServingError
from raystack.plan.prediction import PredictWorkers
from raystack.ray_internals import output
from raystack.serving.offline.output import Done
from raystack.serving.offline.part import Job, Worker

RETRIES = 3
"""How often a part is done again whose worker was lost. Ray Data itself would do it again for ever."""
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


def each_done(job: Job, parts: Sequence[int], workers: PredictWorkers) -> Generator[Done]:
    """Have Ray do the parts, on the cluster that this process is connected to; yield each when it is done.

    Raises what a worker raised, LaunchError if the cluster has no room for the workers, ServingError if they
    are lost again and again.
    """
    _wait_for_resources(workers)
    level = logging.getLogger("ray").level
    # Ray Data has set up a logger of its own.
    logging.getLogger("ray.data").setLevel(level)
    verbose = level != logging.CRITICAL
    with (
        output.native_off_stderr(verbose=verbose),
        closing(_rows(_answers(job, parts, workers))) as rows,
    ):
        try:
            for row in rows:
                answer = pickle.loads(row["answer"])
                if isinstance(answer, RaystackError):
                    raise answer
                yield answer
        except ray.exceptions.RayError as error:
            first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            rule = f"workers are lost again and again, or cannot start: {first}"
            remedy = "run with -v, or with resources=inline"
            raise ServingError(Problem("predict", rule=rule, remedy=remedy)) from error


def _rows(dataset: ray.data.Dataset) -> Generator[dict[str, Any]]:
    """Yield the rows; closed, it stops the execution."""
    yield from dataset.iter_rows()


def _answers(job: Job, parts: Sequence[int], workers: PredictWorkers) -> ray.data.Dataset:
    """Return the dataset of what the actors answer, a row for each part."""
    most = min(workers.most, len(parts))
    todo = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
    with warnings.catch_warnings():
        # No parameter has a name of its own for the retries in the Ray that is pinned.
        warnings.simplefilter("ignore")
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
            max_task_retries=RETRIES,
        )
    answers.context.enable_progress_bars = answers.context.print_on_execution_start = False
    return answers


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
