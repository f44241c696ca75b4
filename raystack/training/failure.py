"""A worker's failure as one of raystack's errors, with the line of the user's code that raised it."""

import errno
import os
import re

import torch
import torch.distributed as dist

from raystack.code.loading import blame, brief, frames, trace
from raystack.errors import (
    ExhaustedError,
    PlanError,
    Problem,
    RaystackError,
    TrainingError,
    WorkerLostError,
)
from raystack.training import determinism

SENTENCES = 3
"""Sentences of an error about memory that are told: what failed, how much was missing and what was free."""


def explained(error: Exception, where: str, folder: str | None, last_good: str) -> RaystackError:
    """Translate what a worker raised.

    `where` is the step and rank, `folder` the user's, `last_good` describes where the run can resume from.
    """
    if (operation := determinism.refused(error)) is not None:
        return _not_deterministic(operation, where, blame(error, folder), trace(error, folder))
    rule = brief(f"{type(error).__name__}: {error}")
    if _no_memory(error):
        smaller = "smaller training.batch.micro, gradient_checkpointing, or a strategy that splits more"
        remedy = f"{smaller}; see {blame(error, folder)}; {last_good}"
        return ExhaustedError(Problem(where, rule=_beginning(rule), remedy=remedy))
    # A device-side assert is the task's own mistake, such as an index out of range, and would come again.
    if isinstance(error, torch.AcceleratorError) and "device-side assert" not in rule:
        return WorkerLostError(Problem(where, rule="its device failed", got=rule.splitlines()[0]))
    if _lost_peers(error):
        return WorkerLostError(Problem(where, rule="the connection to the other workers is gone"))
    if (loader := re.search(r"DataLoader worker \(pid.*", str(error))) is not None:
        return _lost_loader(loader[0].strip(), where, last_good)
    # A place in the training's own code, such as where a stream has ended, means nothing to the user.
    ours = trace(error, folder) is None and frames(error)[-1].filename.startswith(os.path.dirname(__file__))
    remedy = last_good if ours else f"see {blame(error, folder)}; {last_good}"
    return TrainingError(Problem(where, rule=rule, remedy=remedy), trace(error, folder))


def _beginning(rule: str) -> str:
    """Return the first line's first sentences: CUDA's go on with its allocator's books and addresses."""
    line = rule.splitlines()[0]
    return ". ".join(line.split(". ")[:SENTENCES]).removesuffix(".")


def _not_deterministic(operation: str, where: str, place: str, trace: str | None) -> PlanError:
    rule = f"{operation} has no deterministic form ({where})"
    remedy = f"use another operation, see {place}, or leave it false"
    if operation == "cuBLAS":
        rule = f"CUDA began before {determinism.WORKSPACE} was set, and cuBLAS is not deterministic ({where})"
        remedy = (
            f"set {determinism.WORKSPACE}={determinism.FIXED} where this process starts, or leave it false"
        )
    return PlanError(Problem("training.deterministic", rule=rule, got="true", remedy=remedy), trace)


def _lost_loader(text: str, where: str, last_good: str) -> TrainingError:
    """Translate how torch says that a loader process ended; `text` begins with the process."""
    killed = re.search(r"signal: (Killed|Bus error)", text)
    if killed is None:  # the task's own code ended it, or crashed it
        return TrainingError(Problem(where, rule="a loader process ended", got=text, remedy=last_good))
    memory = "memory" if killed[1] == "Killed" else "shared memory (/dev/shm)"
    rule = f"a loader process was ended by the system, which has most likely run out of {memory}"
    remedy = f"fewer training.data.loaders, a smaller training.data.prefetch, or more {memory}; {last_good}"
    return ExhaustedError(Problem(where, rule=rule, got=text, remedy=remedy))


def _no_memory(error: BaseException) -> bool:
    """Return whether `error`, or what it was raised from, says that there is no more memory."""
    # PyTorch has a class for a device only: its allocator on the CPU, and a device's libraries, have a text.
    signs = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
    return (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs))
        or (error.__cause__ is not None and _no_memory(error.__cause__))
    )


def _lost_peers(error: BaseException) -> bool:
    """Return whether a collective failed because another worker is gone."""
    # gloo raises a plain RuntimeError, so only its text says so.
    signs = (
        "gloo",
        "NCCL",
        "Connection closed by peer",
        "Connection reset",
        "Broken pipe",
        "recvValue failed",
        "Connection refused",
    )
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    )
