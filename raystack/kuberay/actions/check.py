"""One check of a cluster and its result."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from raystack.errors import LaunchError

Found = TypeVar("Found")


@dataclass(frozen=True)
class Check:
    """One check and its result."""

    name: str
    ok: bool | None
    """None if it cannot be determined from here."""
    found: str
    remedy: str | None = None
    passing: bool = False
    """True if it may pass by itself, such as a quota that is used up: nothing is refused for it."""


def unless_refused(ask: Callable[[], Found]) -> Found | None:
    """Return the result, or None if the user may not see it."""
    try:
        return ask()
    except LaunchError:
        return None
