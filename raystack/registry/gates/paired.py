"""The paired test: whether one version is better than another on the same chunks of data.

Fisher's randomisation test (The Design of Experiments, 1935, section 21): if the version is better by no more
than the margin, the sign of each chunk's difference from the margin is as likely to be the other. The p-value
is the share of all changes of signs whose mean is at least the one that was found; of more than 2^12 of them,
that of 9,999 drawn at random, with the one that was found (Phipson and Smyth, 2010).
It assumes no distribution, only that the chunks are exchangeable.
"""

import itertools
from collections.abc import Sequence

import numpy as np

EXACT = 12
"""Most differences of which all changes of signs are tried."""
DRAWN = 9_999


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


def _tolerance(differences: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> float:
    """Return a sum that is rounding alone."""
    return float(np.abs(differences).sum()) * 1e-12
