"""Measurement of a model in a process of its own. In: a RunConfig. Out: a ModelProfile.

The driver stays free of torch, of what a task keeps in its module, and of the memory of a real pass.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence

from raystack.config import RunConfig
from raystack.errors import PlanError, Problem, RaystackError
from raystack.plan.footprint import ModelProfile


def measure(config: RunConfig, micros: Sequence[int]) -> ModelProfile:
    """Measure passes of `micros` samples.

    Raises the measurement's error, and PlanError if its process ended without an answer.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    command = [sys.executable, "-P", "-m", "raystack.training.profile.measure"]
    done = subprocess.run(
        command, input=pickle.dumps((config, tuple(micros))), stdout=subprocess.PIPE, env=environment
    )
    if done.returncode != 0:
        rule = f"the process that measures the model ended with status {done.returncode}"
        raise PlanError(
            Problem(
                "--memory",
                rule=rule,
                remedy="see what it said above; without --memory and micro: auto nothing is measured",
            )
        )
    answer: ModelProfile | RaystackError = pickle.loads(done.stdout)
    if isinstance(answer, RaystackError):
        raise answer
    return answer
