"""The paired test: whether one version is better than another on the same chunks of data.

Fisher's randomisation test (The Design of Experiments, 1935, section 21): if the version is better by no more
than the margin, the sign of each chunk's difference from the margin is as likely to be the other. The p-value
is the share of all changes of signs whose mean is at least the one that was found; of more than 2^12 of them,
that of 9,999 drawn at random, with the one that was found (Phipson and Smyth, 2010).
It assumes no distribution, only that the chunks are exchangeable.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from raystack.config.gates import MOST_ALPHA

EXACT = 12
"""Most differences of which all changes of signs are tried."""
DRAWN = 9_999
"""Changes of signs that are drawn of more; 1 / (DRAWN + 1) is the least `registry.gates.champion.alpha`."""


def p_value(new: Sequence[float], old: Sequence[float], margin: float, *, higher: bool) -> float:
    """Return the probability of such differences if `new` is better than `old` by `margin` or less."""
    sign = 1.0 if higher else -1.0
    differences = sign * (np.asarray(new, np.float64) - np.asarray(old, np.float64)) - margin
    found = differences.sum()
    if len(differences) <= EXACT:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(differences))))
        return float(np.mean(signs @ differences >= found - _tolerance(differences)))
    random = np.random.default_rng(0)
    signs = random.choice((1.0, -1.0), (DRAWN, len(differences)))
    beyond = int(np.sum(signs @ differences >= found - _tolerance(differences)))
    return (beyond + 1) / (DRAWN + 1)


def least_p(count: int) -> float:
    """Return the smallest p-value that `count` differences can have."""
    return max(2.0**-count, 1 / (DRAWN + 1))


def too_few(chunks: int, samples: int, alpha: float) -> str | None:
    """Return why no version can be found to be better on so many chunks of data; None if one can."""
    least = least_p(chunks)
    if least < alpha:
        return None
    needed = math.floor(-math.log2(alpha)) + 1
    wanted = (needed - 1) * math.ceil(samples / max(chunks, 1)) + 1
    had = f"{samples} samples in {chunks} chunks give a p of {least:.3g} at least, and alpha is {alpha:g}"
    other = f", or set alpha above {least:.3g}" if least < MOST_ALPHA else ""
    return f"{had}: evaluate on {max(wanted, needed)} samples or more, which make {needed} chunks{other}"


def _tolerance(differences: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> float:
    """Return a sum that is rounding alone."""
    return float(np.abs(differences).sum()) * 1e-12
