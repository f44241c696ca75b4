"""Deterministic algorithms for the time of a training (`training.deterministic`).

torch then takes the deterministic form of each operation, and raises at one that has none.
(https://docs.pytorch.org/docs/stable/notes/randomness.html)
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from raystack.config.training import Training

# With work space of a fixed size cuBLAS splits a product in the same way each time. It reads the variable
# when CUDA begins in the process.
WORKSPACE, FIXED = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


def environment(training: Training) -> Mapping[str, str]:
    """Return the variables that a worker's process has to start with. The user's own value stays."""
    return {WORKSPACE: os.environ.get(WORKSPACE, FIXED)} if training.deterministic else {}


@contextmanager
def deterministic(training: Training) -> Iterator[None]:
    """Have torch be deterministic in the block if `training` says so, and as it was after it."""
    if not training.deterministic:
        yield
        return
    cudnn = torch.backends.cudnn
    algorithms = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    flags, variable = (cudnn.deterministic, cudnn.benchmark), os.environ.get(WORKSPACE)
    os.environ.update(environment(training))
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
        cudnn.deterministic, cudnn.benchmark = flags
        if variable is None:
            del os.environ[WORKSPACE]


def refused(error: Exception) -> str | None:
    """Return the operation without a deterministic form that torch raised `error` at; None: another error."""
    text = str(error)
    if not isinstance(error, RuntimeError) or "torch.use_deterministic_algorithms(True)" not in text:
        return None
    if "CuBLAS" in text:
        return "cuBLAS"
    named = re.match(r"(\S+) does not have a deterministic implementation", text)
    return named[1] if named else None
