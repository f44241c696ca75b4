"""Several short samples in one row. In: their lengths. Out: which samples make which row, and the rows.

Rows are computed once, from the lengths alone, so every worker and every resumed run has the same ones.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Rows of samples: row i holds the samples `members[starts[i]:starts[i + 1]]`."""

    members: Numbers
    """Sample numbers [samples], each once."""
    starts: Numbers
    """[rows + 1]."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> Numbers:
        return self.members[self.starts[row] : self.starts[row + 1]]


def one_by_one(samples: int) -> Rows:
    """Return rows of one sample each."""
    return Rows(np.arange(samples), np.arange(samples + 1))


def pack(lengths: Numbers, capacity: int) -> Rows:
    """Pack by best fit, longest first: a sample goes into the fullest row that it fits in, or a new one.

    Works on the histogram of the lengths, as Krell et al. 2021, "Efficient Sequence Packing without
    Cross-contamination": its cost grows with the number of different lengths, not of samples. Lengths are in
    1..capacity. Rows of one kind are filled from the samples of each length in their order.
    """
    makes = _makes(np.bincount(lengths, minlength=capacity + 1), capacity)
    # Stable, so that every worker and every resumed run makes the same rows.
    pools = np.argsort(lengths, kind="stable")
    taken = np.searchsorted(lengths[pools], np.arange(capacity + 1))
    members, sizes = [], []
    for make, count in makes:
        columns = []
        for length in make:
            columns.append(pools[taken[length] : taken[length] + count])
            taken[length] += count
        members.append(np.stack(columns, axis=1).ravel())
        sizes.append(np.full(count, len(make)))
    return Rows(np.concatenate(members), np.concatenate([[0], np.cumsum(np.concatenate(sizes))]))


def _makes(histogram: Numbers, capacity: int) -> list[tuple[tuple[int, ...], int]]:
    """Return the kinds of rows, as the lengths in them, and the number of each."""
    by_room: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(capacity + 1)]
    for length in range(capacity, 0, -1):
        left = int(histogram[length])
        room = length
        while left:
            while room < capacity and not by_room[room]:
                room += 1
            if room >= capacity:
                _fill_new(by_room, length, left, capacity)
                break
            make, count = by_room[room].popitem()
            used = min(count, left)
            if count > used:
                by_room[room][make] = count - used
            left -= used
            by_room[room - length][(*make, length)] += used
            # A row that was just added to may fit another of this length; then it is the one with the least
            # room.
            room = room - length if room >= 2 * length else room
    return [(make, count) for makes in by_room for make, count in makes.items()]


def _fill_new(by_room: list[Counter[tuple[int, ...]]], length: int, left: int, capacity: int) -> None:
    """Add new rows for `left` samples of one length to `by_room`, as many samples in each as fit."""
    each = capacity // length
    full, rest = divmod(left, each)
    for count, samples in ((full, each), (1, rest)):
        if count and samples:
            by_room[capacity - samples * length][(length,) * samples] += count
