"""The metrics of a finished model, chunk by chunk over its eval sets, and a fingerprint of their samples."""

import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raystack.checkpoint.evaluation import EvaluatedSet, set_of
from raystack.config.data import Data
from raystack.config.gates import Gates
from raystack.errors import ConfigError, Problem
from raystack.registry.gates.paired import too_few
from raystack.task import Task
from raystack.training.data import eval_batches, size
from raystack.training.data.eval_sets import EvalSet
from raystack.training.evaluate import sums
from raystack.training.meters import MeterSet
from raystack.training.modes import evaluating
from raystack.training.world import World

CHUNKS = 50
"""Chunks of a set, each of them a batch of samples that follow one another."""
SAMPLES = 10_000
"""Most samples of a set that are looked at, the first ones."""
LIMIT_S = 60.0
"""Seconds after which there is no record: one of a part would be of other data on a slower machine."""


TOO_SLOW = f"its evaluation on the CPU took longer than {LIMIT_S:g} s; have eval_data return fewer samples"


def check_chunks(sets: Sequence[EvalSet], gates: Gates | None) -> None:
    """Raise ConfigError if the eval set of the gate `champion` is too small for any version to pass."""
    if gates is None or gates.champion is None:
        return
    champion, named = gates.champion, {each.prefix: each.data for each in sets}
    place = set_of(named, champion.metric)
    if place is None or (length := size(named[place[0]])) is None:
        return
    samples, chunk = _lengths(length)
    if (few := too_few(math.ceil(samples / chunk), samples, champion.alpha)) is not None:
        rule = f"no version could pass: {few}"
        raise ConfigError(Problem("registry.gates.champion.alpha", rule=rule))


def evaluated(
    task: Task, sets: Sequence[EvalSet], data: Data, module: nn.Module
) -> dict[str, EvaluatedSet] | None:
    """Return the record of each set, by its prefix; None if it takes too long.

    `module` is the trained model in eval mode, on the CPU. Raises what the task raises.
    """
    until, world = time.monotonic() + LIMIT_S, World(0, 1, torch.device("cpu"))
    found = {}
    for each in sets:
        if (record := _evaluated(task, each, data, module, MeterSet(task, world, None), until)) is None:
            return None
        found[each.prefix] = record
    return found


@torch.no_grad()
def _evaluated(
    task: Task, of: EvalSet, data: Data, module: nn.Module, meters: MeterSet, until: float
) -> EvaluatedSet | None:
    digest, chunks, samples = hashlib.sha256(), list[Mapping[str, float]](), 0
    with evaluating(module):
        for batch, count in _batches(task, of, data):
            for part in _bytes(batch):
                digest.update(part)
            metrics = sums(task.metrics(module, batch), count, meters)
            chunks.append({name: total / weight for name, (total, weight) in metrics.items() if weight})
            samples += count
            if samples >= SAMPLES:
                break
            if time.monotonic() > until:
                return None
    return EvaluatedSet(digest.hexdigest(), samples, tuple(chunks))


def _batches(task: Task, of: EvalSet, data: Data) -> Iterator[tuple[Any, int]]:
    in_process = data.model_copy(update={"loaders": 0})
    chunk = _lengths(size(of.data) or SAMPLES)[1]
    return eval_batches(task, of.data, chunk, 0, 1, in_process, 0, False)


def _lengths(samples: int) -> tuple[int, int]:
    """Return how many samples of a set are looked at, and how many of them are a chunk."""
    looked = min(samples, SAMPLES)
    return looked, max(1, math.ceil(looked / CHUNKS))


def _bytes(node: Any) -> Iterator[bytes]:
    """Yield all that is in a batch, as bytes that another batch does not have."""
    if isinstance(node, Tensor):
        node = node.float() if node.dtype == torch.bfloat16 else node
        node = node.detach().cpu().numpy()
    if isinstance(node, np.ndarray) and node.dtype != np.dtype(object):
        yield f"{node.dtype}{node.shape}".encode()
        yield np.ascontiguousarray(node).tobytes()
    elif isinstance(node, Mapping):
        for name in sorted(node, key=str):
            yield str(name).encode()
            yield from _bytes(node[name])
    elif isinstance(node, (list, tuple, np.ndarray)):
        yield f"[{len(node)}".encode()
        for each in node:
            yield from _bytes(each)
    else:
        yield repr(node).encode()
