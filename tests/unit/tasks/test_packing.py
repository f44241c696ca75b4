"""Rows of several samples: each sample once, none too full, as few as best fit makes."""

import numpy as np
import pytest

from raystack.tasks.packing import pack


def best_fit(lengths: list[int], capacity: int) -> int:
    """Rows that best fit, longest first, needs: written plainly, sample by sample."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        room = min((room for room in rooms if room >= length), default=None)
        if room is None:
            room = capacity
        else:
            rooms.remove(room)
        rooms.append(room - length)
    return len(rooms)


@pytest.mark.parametrize("seed", range(50))
def test_each_sample_is_in_one_row_and_the_rows_are_those_of_best_fit(seed: int) -> None:
    random = np.random.default_rng(seed)
    capacity = int(random.integers(1, 40))
    lengths = random.integers(1, capacity + 1, int(random.integers(1, 60)))
    rows = pack(lengths, capacity)
    assert sorted(sample for row in range(len(rows)) for sample in rows[row].tolist()) == list(
        range(len(lengths))
    )
    assert max(int(lengths[rows[row]].sum()) for row in range(len(rows))) <= capacity
    assert len(rows) == best_fit(lengths.tolist(), capacity)


def test_the_same_lengths_make_the_same_rows() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1000)
    assert pack(lengths, 100).members.tolist() == pack(lengths.copy(), 100).members.tolist()
