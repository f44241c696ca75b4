"""A served model and its versions: which answers, and when an old one can go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from raystack.checkpoint.statistics import DataStatistics
from raystack.errors import Problem
from raystack.serving.admission import RETRY_S, Admission
from raystack.serving.engine import Arrays, Engine
from raystack.serving.protocol import Contract, InferRequest, RequestError
from raystack.serving.split.seen import Counts
from raystack.serving.statistics import Statistics

State = Literal["loading", "ready", "unavailable", "unloading"]


@dataclass(eq=False)
class Version:
    """One version of a model."""

    contract: Contract
    engine: Engine | None = None
    """None unless it is ready or finishes its last requests."""
    state: State = "loading"
    reason: str = ""
    """Why it is not ready."""
    statistics: Statistics = field(default_factory=Statistics)
    ongoing: int = 0
    """Number of requests that it works on or will work on."""
    run: str | None = None
    """Id of the run that trained it; None if it is not one run's."""
    admission: Admission | None = None
    """Its own, where it does not share the model's."""
    counts: Counts | None = None
    """What is seen of it while there are versions beside each other."""
    data: DataStatistics | None = None
    """Statistics of the data of its evaluation, which drift is measured against; None if it has none."""

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self.state == "ready"

    def __enter__(self) -> None:
        """Hold the version: it does not close before the request has ended."""
        self.ongoing += 1

    def __exit__(self, *_: object) -> None:
        self.ongoing -= 1
        if not self.ongoing and self.state == "unloading":
            self._close()

    def retire(self, reason: str = "unloaded") -> None:
        """Take no more requests, and close the engine when those that are there are answered."""
        self.state, self.reason = "unloading", reason
        if not self.ongoing:
            self._close()

    def _close(self) -> None:
        engine, self.engine, self.state = self.engine, None, "unavailable"
        if engine is not None:
            engine.close()


class Split(Protocol):
    """Who answers a request that names no version, and who gets a copy of it."""

    def chosen(self, stable: Version, request: InferRequest, headers: Mapping[str, str] | None) -> Version:
        """Return the version that answers."""

    def copy(self, request: InferRequest, outputs: Arrays) -> None:
        """Send a copy of a request that the stable version has answered, if there is to be one."""


@dataclass(eq=False)
class Model:
    """A model: its versions, in the order in which they came, share the admission."""

    name: str
    admission: Admission
    timeout_s: float | None = None
    """Bound for a request, from the moment that it is whole; None for none."""
    versions: dict[str, Version] = field(default_factory=dict)
    others: dict[str, Version] = field(default_factory=dict)
    """Versions beside them that other processes have."""
    split: Split | None = None
    """None where the newest version answers all requests that name none."""
    on_demand: bool = False
    """Whether a request has it loaded."""
    reason: str = ""
    """Why it could not be loaded when it was last asked for."""

    @property
    def ready(self) -> bool:
        """Whether a version answers, or is loaded to answer."""
        return self.on_demand or any(version.ready for version in self.versions.values())

    @property
    def present(self) -> dict[str, Version]:
        """All versions by name, those of other processes too."""
        found = dict(self.versions)
        for name, version in self.others.items():
            if name not in found or not found[name].ready:
                found[name] = version
        return found

    @property
    def names(self) -> set[str]:
        """Names of the versions that answer."""
        return {name for name, version in self.present.items() if version.ready}

    def version(self, wanted: str | None = None) -> Version:
        """Return a version that answers; for None, the newest one.

        Raises RequestError: 404 if there is no such version, 503 if it does not answer now.
        """
        if wanted:
            return self._answers(self.known(wanted))
        for version in reversed(self.versions.values()):
            if version.state == "ready":
                return version
        return self._answers(self.known())

    def known(self, wanted: str | None = None) -> Version:
        """Return a version in any state; for None, the one that answers, or else the newest.

        Raises RequestError (404).
        """
        if not self.versions:
            raise RequestError(Problem(f"model '{self.name}'", rule="has no version"), 404)
        if not wanted:
            newest = reversed(self.versions.values())
            return next((each for each in newest if each.ready), next(reversed(self.versions.values())))
        version = self.versions.get(wanted)
        if version is None or not version.ready:
            version = self.others.get(wanted, version)
        if version is None:
            known = ", ".join(f"'{name}'" for name in self.present)
            where = f"model '{self.name}', version '{wanted[:80]}'"
            raise RequestError(Problem(where, rule=f"this server has version {known}"), 404)
        return version

    def limit_s(self, asked_s: float | None) -> float | None:
        """Return the bound for a request whose client asks for one: the shorter of both."""
        if asked_s is None or self.timeout_s is None:
            return asked_s or self.timeout_s
        return min(asked_s, self.timeout_s)

    def _answers(self, version: Version) -> Version:
        if not version.ready:
            where = f"model '{self.name}', version '{version.contract.version}'"
            rule = f"is {version.state}" + (f": {version.reason}" if version.reason else "")
            raise RequestError(Problem(where, rule=rule), 503, (("retry-after", str(RETRY_S)),))
        return version
