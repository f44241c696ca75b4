"""What the gates found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SIGNED = "serving.verify"
"""Name of the check of the signature of the files, before all others."""


@dataclass(frozen=True)
class Check:
    """One thing that is asked of a version."""

    name: str
    """Key below `registry.gates`, or SIGNED."""
    passed: bool
    measured: Any
    """A number, or what was found in words; None if nothing was."""
    bound: str
    """What is asked, in words."""
    reason: str
    """Why it passed or not, in one line."""

    @property
    def where(self) -> str:
        """Key of the config that asks for it."""
        return self.name if self.name == SIGNED else f"registry.gates.{self.name}"


@dataclass(frozen=True)
class GateReport:
    """All that is asked of a version."""

    version: str
    """`models:/name/version`."""
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether all have passed."""
        return all(check.passed for check in self.checks)

    @property
    def refused(self) -> tuple[Check, ...]:
        """Those that have not."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def why(self) -> str:
        """One line: what refused the version, or that nothing did."""
        if not self.checks:
            return "no gates are set"
        if self.passed:
            return f"passed {', '.join(map(_passed, self.checks))}"
        return "; ".join(f"{check.name}: {check.reason}" for check in self.refused)

    @property
    def measured(self) -> Mapping[str, Any]:
        """What was measured, by the name of the check; where nothing was, why."""
        return {
            check.name: check.reason if check.measured is None else check.measured for check in self.checks
        }


def _passed(check: Check) -> str:
    return check.name if check.measured is not None else f"{check.name} ({check.reason})"
