"""How far two histograms of the same bins are apart, and how far they may be by chance."""

import math

import numpy as np

from raystack.checkpoint.statistics import Array

LARGEST = 30
"""Bins that are compared one by one, those with most of the expected values; others together."""
CHANCE = 3.7
"""Standard deviations of a normal distribution that are exceeded once in 10,000 times."""


def stability_index(expected: Array, seen: Array) -> float:
    """Return the population stability index of two histograms with the same bins: 0 if they are equal.

    With p and q the fractions of the values in each bin, it is the sum of (q - p) ln(q / p): the divergence
    of S. Kullback and R. A. Leibler, On Information and Sufficiency (1951), under the name that it has in N.
    Siddiqi, Credit Risk Scorecards (2006). Half a value is added to each bin, as an empty one has no
    logarithm.
    """
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (expected, seen))
    return float(np.sum((q - p) * np.log(q / p)))


def by_chance(bins: int, expected: int, seen: int) -> float:
    """Return the index that two samples of the same data exceed once in 10,000 times.

    It is distributed as chi squared with bins - 1 degrees of freedom, times 1/expected + 1/seen: B. Yurdakul,
    Statistical Properties of Population Stability Index (2018). The quantile is the approximation of E. B.
    Wilson and M. M. Hilferty, The Distribution of Chi-square (1931).
    """
    freedom = max(bins - 1, 1)
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + CHANCE * math.sqrt(spread)) ** 3 * (1 / expected + 1 / seen)


def merged(expected: Array, seen: Array) -> tuple[Array, Array]:
    """Return both histograms with the bins that few values are expected in as one."""
    if len(expected) <= LARGEST + 1:
        return expected, seen
    order = np.argsort(-expected, kind="stable")
    largest, rest = order[:LARGEST], order[LARGEST:]
    first, second = (np.append(counts[largest], counts[rest].sum()) for counts in (expected, seen))
    return first, second
