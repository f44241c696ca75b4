"""Knowledge of the operator: its version, feature gates, batch scheduler and settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from raystack.errors import ConfigError, Problem, nearest
from raystack.plan.kuberay.facts import ON_SINCE, at_least

RELEASES = (
    *(
        "0.3.0",
        "0.4.0",
        "0.5.0",
        "0.5.1",
        "0.5.2",
        "0.6.0",
        "0.6.1",
        "1.0.0",
        "1.1.0",
        "1.1.1",
        "1.2.0",
        "1.2.1",
    ),
    *(
        "1.2.2",
        "1.3.0",
        "1.3.1",
        "1.3.2",
        "1.4.0",
        "1.4.1",
        "1.4.2",
        "1.5.0",
        "1.5.1",
        "1.6.0",
        "1.6.1",
        "1.6.2",
    ),
    "1.7.0",
)
"""Releases of KubeRay."""
SCHEDULERS = ("volcano", "yunikorn", "kai-scheduler", "scheduler-plugins", "none")
"""Helm's `batchScheduler.name`, and none of them."""


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

    @classmethod
    def of(cls, version: str | None, gates: frozenset[str], scheduler: str | None) -> "Operator":
        """Return an operator of which a user says this. Raises ConfigError for what does not exist."""
        release = cls.version if version is None else _release(version)
        problems = []
        if release is None:
            newest_one = f"the newest is {RELEASES[-1]}"
            problems.append(Problem("--kuberay", "is a release of KubeRay", version, newest_one))
        if scheduler not in (None, *SCHEDULERS):
            meant = nearest(scheduler or "", SCHEDULERS)
            rule, remedy = f"is one of {', '.join(SCHEDULERS)}", f"did you mean {meant}?" if meant else None
            problems.append(Problem("--scheduler", rule, scheduler, remedy))
        if release is None or problems:
            raise ConfigError(problems)
        return cls(release, gates, scheduler=scheduler)

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


def _release(text: str) -> str | None:
    """Return the release that is meant by `1.6.0`, `v1.6.0` or `1.6`, or None."""
    version = text.removeprefix("v")
    if version in RELEASES:
        return version
    # A minor version alone is its first release: later ones refuse no less.
    return next((each for each in RELEASES if each.startswith(f"{version}.") and "." in version), None)
