"""Evidence that a version breaks a bound, which may be looked at as often as one likes.

In an interval a share x of what is counted (0 to 1) is bad. The hypothesis is that its mean, given all that
was before the interval, is at most m. Against it a gambler bets the fraction f of a capital on x: after the
interval the capital is (1 - f) + f x/m times what it was. If the hypothesis is true, the capital cannot be
expected to grow: it is a supermartingale that begins with 1. By Ville's inequality it ever reaches 1/alpha
with probability alpha at most, over all looks together. The mean of the capitals of several gamblers, each
with another f, has the same property, and grows nearly as fast as that of the best of them.

A gambler who has lost for an hour finds it hard to notice a version that goes bad then. So not all is put at
stake at the first interval: 1/(1 + ln(1 + t)) is still in reserve after t of them, and what is taken from it
is a new stake of all gamblers. An interval much later is found after a few more, and capitals and reserve
together are a supermartingale as before. Their sum is the e-value; it is never set back.

The unit is the interval and not the request, so requests of one interval may depend on each other in any way:
a replica that is killed, or a machine that stalls, fails many requests at once and counts as one bad
interval.

Sources: J. Ville, Étude critique de la notion de collectif (1939); I. Waudby-Smith and A. Ramdas, Estimating
means of bounded random variables by betting (JRSS B 86, 2024); A. Ramdas, P. Grünwald, V. Vovk and G. Shafer,
Game-theoretic statistics and safe anytime-valid inference (Statistical Science 38, 2023); for stakes that
begin later, J. Shin, A. Ramdas and A. Rinaldo, E-detectors (New England Journal of Statistics in Data Science
2, 2024).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

FRACTIONS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
"""Bets of the gamblers. Small ones find a slight excess, great ones a large one soon."""

MOST = 1e100
"""Capital at which nothing is left to show. Numbers stay finite."""


class Shown(NamedTuple):
    """What one interval shows: `bad` of so many, and the bound of the expected share."""

    bad: float
    of: float
    bound: float

    @property
    def share(self) -> float:
        return self.bad / self.of

    @property
    def exceeds(self) -> bool:
        """Whether the share is above the bound."""
        return self.of > 0 and self.share > self.bound

    @property
    def says_nothing(self) -> bool:
        return not self.of or not 0 < self.bound < 1


@dataclass(frozen=True)
class Bets:
    """The capitals of the gamblers, and the number of intervals that they have bet on."""

    capitals: tuple[float, ...] = (0.0,) * len(FRACTIONS)
    intervals: int = 0

    @property
    def e(self) -> float:
        """The e-value: evidence that the bound is broken. 1 or less is to be expected if it is kept."""
        return sum(self.capitals) / len(self.capitals) + reserve(self.intervals)

    def after(self, shown: Shown | None) -> "Bets":
        """Return the bets after an interval; the same ones if it shows nothing."""
        if shown is None or shown.says_nothing:
            return self
        gain, stake = shown.share / shown.bound, reserve(self.intervals) - reserve(self.intervals + 1)
        capitals = (
            min(MOST, (capital + stake) * (1 - fraction + fraction * gain))
            for capital, fraction in zip(self.capitals, FRACTIONS, strict=True)
        )
        return Bets(tuple(capitals), self.intervals + 1)


def reserve(intervals: int) -> float:
    """Return what is not yet at stake after so many intervals."""
    return 1 / (1 + math.log1p(intervals))
