"""What is known of the operator that will read the manifests: its version, feature gates, batch scheduler and
settings.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

Version = tuple[int, int, int]

ON_SINCE: Mapping[str, str] = {
    "RayClusterStatusConditions": "1.3.0",
    "RayJobDeletionPolicy": "1.6.0",
    "RayMultiHostIndexing": "1.6.0",
    "RayServiceIncrementalUpgrade": "1.7.0",
}
"""Feature gates that are on by default, and the KubeRay version since which they are."""


@dataclass(frozen=True)
class Operator:
    """An operator of which nothing is known but its version, unless it is told."""

    version: str = "1.7.0"
    """KubeRay's version."""
    gates: frozenset[str] = frozenset()
    """Feature gates that are known to be on, besides those that are by default; also those of Kueue."""
    off: frozenset[str] = frozenset()
    """Feature gates that are known to be off."""
    scheduler: str | None = None
    """Helm's `batchScheduler.name`: `volcano`, `yunikorn`, `kai-scheduler`, `scheduler-plugins`, or `none`.
    None: not known.
    """
    settings: Mapping[str, str] = field(default_factory=dict)
    """Flags and environment of the operator that are known, e.g. `{use-kubernetes-proxy: "true"}`."""

    def has(self, gate: str) -> bool | None:
        """Whether the gate is on; None where that is not known."""
        if gate in self.off:
            return False
        if gate in self.gates or (gate in ON_SINCE and self.at_least(ON_SINCE[gate])):
            return True
        return None

    def at_least(self, wanted: str) -> bool:
        """Whether the operator is of that version or newer. One whose version cannot be read is taken for the
        newest.
        """
        own, other = version(self.version), version(wanted)
        return own is None or other is None or own >= other

    def setting(self, name: str) -> bool:
        """Whether a flag is known to be on."""
        return self.settings.get(name, "").lower() in ("1", "true", "yes")


def version(text: str) -> Version | None:
    """`2.52.0`, also with what follows it (`2.52.0rc1`), as numbers; None where it is none."""
    match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None
