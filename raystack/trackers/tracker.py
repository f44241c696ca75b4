"""The protocol of a tracker, which each library's module implements."""

from collections.abc import Mapping
from typing import Literal, Protocol

Status = Literal["finished", "failed", "paused"]
"""The end of a run. `paused`: it stopped on request, and can go on."""


class Tracker(Protocol):
    """A record of one run. All methods are called in one thread, and may raise anything."""

    @property
    def links(self) -> Mapping[str, str]:
        """URLs or commands that show the run, by the name of the tool."""

    def start(self, step: int) -> None:
        """Begin, the config first, or go on: the run has done `step` optimizer steps.

        The run may have been recorded beyond that step, by an earlier driver or attempt. The record then has
        each later step once.
        """

    def metrics(self, step: int, metrics: Mapping[str, float], at: float) -> None:
        """Record values after `step` optimizer steps. NaN and infinity are allowed.

        `at` is in seconds since 1970.
        """

    def checkpoint(self, step: int, url: str) -> None:
        """Record where the checkpoint of a step is."""

    def finish(self, status: Status) -> None:
        """End the record, and return when what was recorded is where a reader finds it."""
