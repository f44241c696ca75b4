"""Seeds of random numbers, as functions of what the numbers are for: torch's, NumPy's and Python's own.

No part draws from where another one has left a generator, so there is no generator state to save, and neither
the number of loader processes nor a resume changes a number.
"""

import random
from functools import lru_cache

import numpy as np
import torch


def mixed(*numbers: int) -> int:
    """Return a seed for a tuple of numbers, the same in every process."""
    # Python randomises the hash of strings per process, not that of a tuple of ints.
    return hash(numbers) & 0x7FFF_FFFF_FFFF_FFFF


def seed_host(value: int) -> None:
    """Seed the generators of the CPU: torch's, NumPy's legacy one and that of the module random; 7 us."""
    # torch.manual_seed seeds every kind of device, and takes 0.2 ms or more even without any.
    torch.default_generator.manual_seed(value)
    np.random.seed(_numpys(value))
    random.seed(value)


def drawn_since(value: int) -> bool:
    """Return whether a number was drawn since `seed_host(value)`; it draws one from each generator itself."""
    now = (float(torch.rand(())), float(np.random.random_sample()), random.random())
    return now != _first_numbers(value)


@lru_cache(maxsize=8)
def _first_numbers(value: int) -> tuple[float, float, float]:
    generator = torch.Generator().manual_seed(value)
    return (
        float(torch.rand((), generator=generator)),
        float(np.random.RandomState(_numpys(value)).random_sample()),
        random.Random(value).random(),
    )


def _numpys(value: int) -> int:
    # torch's generator is the same as NumPy's, and takes the lower 32 bits: the same ones would draw alike.
    return (value ^ (value >> 32)) & 0xFFFF_FFFF
