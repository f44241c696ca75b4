"""Knowledge of the operator: its version, feature gates, batch scheduler and settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from raystack.plan.kuberay.facts import ON_SINCE, at_least


@dataclass(frozen=True)
class Operator:
    """Operator, of which by default only the version is known."""

    version: str = "1.7.0"
    """Version of KubeRay."""
    gates: frozenset[str] = frozenset()
    """Feature gates that are known to be on, besides those that are by default; also those of Kueue."""
    off: frozenset[str] = frozenset()
    """Feature gates that are known to be off."""
    scheduler: str | None = None
    """Helm's `batchScheduler.name`: `volcano`, `yunikorn`, `kai-scheduler`, `scheduler-plugins`, or `none`.
    None if not known.
    """
    settings: Mapping[str, str] = field(default_factory=dict)
    """Flags and environment of the operator that are known, e.g. `{use-kubernetes-proxy: "true"}`."""

    def has(self, gate: str) -> bool | None:
        """Return whether the gate is on, or None if that is not known."""
        if gate in self.off:
            return False
        if gate in self.gates or (gate in ON_SINCE and self.at_least(ON_SINCE[gate])):
            return True
        return None

    def at_least(self, wanted: str) -> bool:
        """Return whether the operator is at least this version; an unparseable one counts as newest."""
        return at_least(self.version, wanted)

    def setting(self, name: str) -> bool:
        """Return whether a flag is known to be on."""
        return self.settings.get(name, "").lower() in ("1", "true", "yes")
