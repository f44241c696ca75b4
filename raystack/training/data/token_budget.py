"""Passes by padded length. In: the lengths of samples, and the most tokens of a pass. Out: who reads what.

A pass costs its longest sample's length times its number of samples, because shorter ones are padded.
"""

from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np

from raystack.training.data.order import Indices, Order

Part = tuple[int, int]
"""A range of samples that are sorted by length."""

EXACT = 0.01
"""How near to its least the cost of the costliest pass is found, as a fraction of the budget."""

STEPS = 64
"""Number of steps whose passes are kept: the loaders ask for a step before the training does."""


class TokenBudget:
    """The passes of a step over all workers, of at most `tokens` padded tokens each.

    A pure function of the step's samples and of the number of workers. Samples of similar length are
    together, there are as few passes as can be, and the costliest is about as cheap as it can be. Passes that
    run at the same time cost about the same, so that no worker waits long for another.
    """

    def __init__(self, order: Order, lengths: Sequence[int], tokens: int) -> None:
        self._order, self._tokens = order, tokens
        self._lengths: Indices = np.maximum(np.asarray(lengths, np.int64), 1)
        self._passes = lru_cache(maxsize=STEPS)(self._made)

    def split(self, start: int, stop: int, workers: int, rank: int) -> list[tuple[tuple[int, ...], bool]]:
        """Return this worker's passes over positions `start` to before `stop`, as many as any other's.

        Each is (positions, whether its samples count). Where samples are too few, a worker repeats a pass.
        """
        passes = self._passes(start, stop, workers)
        rounds = -(-len(passes) // workers)
        mine = [(positions, True) for positions in passes[rank::workers]]
        return mine + [(passes[-1], False)] * (rounds - len(mine))

    def _made(self, start: int, stop: int, workers: int) -> list[tuple[int, ...]]:
        """Return all passes, the costliest first: those that run at the same time follow one another."""
        positions = np.arange(start, stop)
        lengths = self._lengths[self._order.at(positions)]
        by_length = np.argsort(lengths, kind="stable")
        ordered: list[int] = lengths[by_length].tolist()
        ends = _evened(ordered, self._tokens, workers)
        parts = _filled_up(ordered, list(zip([0, *ends[:-1]], ends, strict=True)), workers)
        parts.sort(key=partial(_cost, ordered), reverse=True)
        return [tuple(positions[by_length[first:end]].tolist()) for first, end in parts]


def cut(lengths: Sequence[int], tokens: int) -> list[int]:
    """Return where the passes of a sequence of samples end: each is as large as it can be, or one sample."""
    ends, first, longest = [], 0, 0
    for index, length in enumerate(lengths):
        if length > longest:
            longest = length
        if longest * (index + 1 - first) > tokens and index > first:
            ends.append(index)
            first, longest = index, length
    return [*ends, len(lengths)]


def costliest(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Return the samples of the passes that take most memory.

    One has the longest sample, the other the most padded tokens; the same is returned once.
    """
    each = np.maximum(np.asarray(lengths, np.int64), 1)
    by_length = np.argsort(each, kind="stable")
    ordered = each[by_length]
    # As many as fit, of those that are no longer.
    counts = np.minimum(np.maximum(tokens // ordered, 1), np.arange(1, len(ordered) + 1))
    largest = len(ordered) - 1 - int(np.argmax((ordered * counts)[::-1]))
    lasts = sorted({largest, len(ordered) - 1})
    return [by_length[last + 1 - counts[last] : last + 1].tolist() for last in lasts]


def _evened(ordered: list[int], tokens: int, workers: int) -> list[int]:
    """Return the ends of as few rounds of passes as `tokens` allows, the costliest as cheap as it can be."""
    most = -(-len(cut(ordered, tokens)) // workers) * workers
    low, high = max(ordered[-1], sum(ordered) // most), tokens
    while high - low > tokens * EXACT:
        middle = (low + high) // 2
        if len(cut(ordered, middle)) <= most:
            high = middle
        else:
            low = middle + 1
    return cut(ordered, high)


def _filled_up(ordered: list[int], parts: list[Part], workers: int) -> list[Part]:
    """Halve the costliest passes until each worker has as many, or none has two samples."""
    while len(parts) % workers:
        several = [part for part in parts if part[1] - part[0] > 1]
        if not several:
            break
        first, end = costliest = max(several, key=partial(_cost, ordered))
        middle = (first + end) // 2
        parts = [part for part in parts if part != costliest] + [(first, middle), (middle, end)]
    return parts


def _cost(ordered: list[int], part: Part) -> int:
    """Return the padded tokens of a pass over samples by rising length."""
    return ordered[part[1] - 1] * (part[1] - part[0])
