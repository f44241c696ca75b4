"""What is known of the operator that will read the manifests: its version, feature gates, batch scheduler and
settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from raystack.plan.kuberay.facts import ON_SINCE, at_least


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
        return at_least(self.version, wanted)

    def setting(self, name: str) -> bool:
        """Whether a flag is known to be on."""
        return self.settings.get(name, "").lower() in ("1", "true", "yes")
