"""Findings: where, why it is wrong, and what to do."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning"]
"""`error`: it is rejected, or cannot work. `warning`: it probably does not work as intended, or depends on
what is not known here.
"""


@dataclass(frozen=True)
class Finding:
    """Violation of a rule."""

    id: str
    level: Level
    where: str
    """Position, as `file:line`."""
    path: str
    """Path, e.g. `spec.rayClusterSpec.headGroupSpec.template`."""
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.level} {self.id} {self.path}: {self.reason}; {self.remedy}"
