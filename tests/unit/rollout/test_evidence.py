"""The error rates of the analysis, by simulation with a fixed seed."""

from collections.abc import Callable

import numpy as np
import pytest

from raystack.rollout.evidence import FRACTIONS, Bets, Shown, reserve

LOOKS, RUNS, ALPHA = 300, 4000, 0.1

Draw = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]


def highest(draw: Draw, bound: float) -> np.ndarray:
    """The highest e-value of each of many rollouts, all looks together."""
    rng = np.random.default_rng(7)
    fractions = np.array(FRACTIONS)[:, None]
    capital, most = np.zeros((len(FRACTIONS), RUNS)), np.ones(RUNS)
    for look in range(LOOKS):
        bad, count = draw(rng)
        share = np.where(count > 0, bad / np.maximum(count, 1), bound)
        stake = reserve(look) - reserve(look + 1)
        capital = (capital + stake) * ((1 - fractions) + fractions * share / bound)
        most = np.maximum(most, capital.mean(0) + reserve(look + 1))
    return most


def at_the_bound(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    count = rng.poisson(3, RUNS)
    return rng.binomial(count, 0.05), count


def in_bursts(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """All requests of an interval fail, or none: they depend on each other entirely."""
    count = rng.poisson(20, RUNS)
    return count * (rng.random(RUNS) < 0.05), count


def of_both(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Errors of two equal versions, of which one has 5 % of the requests, at a rate that moves a lot."""
    rate = rng.choice([0.001, 0.01, 0.3], RUNS)
    new, old = rng.binomial(5, rate), rng.binomial(95, rate)
    return new, new + old


@pytest.mark.parametrize("draw", [at_the_bound, in_bursts, of_both])
def test_a_version_that_keeps_its_bound_is_sent_back_with_the_stated_probability_at_most(draw: Draw) -> None:
    false = (highest(draw, 0.05) >= 1 / ALPHA).mean()
    assert false <= ALPHA
    assert false > ALPHA / 20  # the simulation is able to find one that is too eager


def test_simulated_bets_are_the_real_ones() -> None:
    shown = [(1, 4), (0, 3), (2, 2), (0, 9)]
    bets = Bets()
    for bad, count in shown:
        bets = bets.after(Shown(bad, count, 0.05))
    fractions, capital = np.array(FRACTIONS), np.zeros(len(FRACTIONS))
    for look, (bad, count) in enumerate(shown):
        capital = (capital + reserve(look) - reserve(look + 1)) * (
            1 - fractions + fractions * bad / count / 0.05
        )
    assert bets.e == pytest.approx(capital.mean() + reserve(len(shown)))


def found(rate: float, good: int = 0) -> int:
    """The number of bad intervals until a version is found, after so many good ones."""
    rng, bets = np.random.default_rng(3), Bets()
    for _ in range(good):
        bets = bets.after(Shown(rng.binomial(40, 0.005), 40, 0.05))
    for look in range(1, 300):
        bets = bets.after(Shown(rng.binomial(40, rate), 40, 0.05))
        if bets.e >= 4 / 0.001:
            return look
    raise AssertionError("not found")


@pytest.mark.parametrize(("rate", "most"), [(1.0, 4), (0.3, 7), (0.15, 20)])
def test_a_version_far_beyond_its_bound_is_found_within_few_intervals(rate: float, most: int) -> None:
    assert found(rate) <= most


def test_a_version_that_goes_bad_after_an_hour_is_found_soon() -> None:
    assert found(1.0, good=3600) <= 10


def test_one_bad_interval_is_not_enough() -> None:
    assert Bets().after(Shown(1000, 1000, 0.05)).e < 10


def test_what_shows_nothing_changes_nothing() -> None:
    assert Bets().e == 1
    assert Bets().after(None) == Bets()
    assert Bets().after(Shown(0, 0, 0.05)) == Bets()
    assert Bets().after(Shown(3, 3, 1.0)) == Bets()  # no request of the other: nothing to compare with
