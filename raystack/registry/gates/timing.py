"""The time of a model's predictions of one sample, on one core of this machine."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from raystack.checkpoint.checksums import verify_model
from raystack.checkpoint.example import Array, read_example, sent
from raystack.errors import Problem, RaystackError, ServingError

WARM, TIMED = 5, 100
"""Predictions before the first one that counts, and those that count."""
LIMIT_S = 30.0


def latency_ms(folder: Path, percentile: float) -> float | None:
    """Return a percentile of the milliseconds of predictions; None if the model has no example of inputs.

    Runs the model's code: its signature has been checked before. Raises ServingError if it cannot be loaded
    or does not predict.
    """
    example = read_example(folder)
    if example is None:
        return None
    import torch

    from raystack.checkpoint.weights import read_model

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        verify_model(folder)
        task, module, _ = read_model(folder)
        with torch.inference_mode():
            return float(np.percentile(_times(task, module, example), percentile))
    except RaystackError as error:
        raise ServingError(error.problems) from error
    except Exception as error:  # the task's own
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ServingError(Problem(str(folder), rule=f"it does not predict: {said}")) from error
    finally:
        torch.set_num_threads(threads)


def _times(task: Any, module: Any, example: Mapping[str, Array]) -> list[float]:
    times, until = [], time.monotonic() + LIMIT_S
    for number in range(WARM + TIMED):
        inputs = {name: sent(array) for name, array in example.items()}
        began = time.perf_counter()
        task.predict(module, inputs)
        if number >= WARM:
            times.append((time.perf_counter() - began) * 1000)
        if times and time.monotonic() > until:
            break
    return times
