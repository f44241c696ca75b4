"""The models of one process and their versions, as every transport sees them.

A transport reads a request with a version's contract and asks `infer`, which admits it, computes it within
its time, counts it, and tells the observers. A new version is `put` beside the old one and answers from then
on; the old one is `retire`d, ends what it has, and closes.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from raystack.errors import Problem, nearest
from raystack.serving.admission import Admission
from raystack.serving.engine import Arrays, Engine
from raystack.serving.observers import Observer, Transport
from raystack.serving.protocol import Contract, InferRequest, RequestError
from raystack.serving.statistics import Statistics

State = Literal["loading", "ready", "unavailable", "unloading"]

logger = logging.getLogger(__name__)


class Call(NamedTuple):
    """How a request came."""

    protocol: Transport
    started: float
    """`time.perf_counter()` at its arrival."""
    timeout_s: float | None = None
    """The client's own bound for the whole request."""
    trace: str | None = None
    """Header `traceparent`."""
    headers: Mapping[str, str] | None = None


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
    """Number of requests that it works on."""

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self.state == "ready"


@dataclass(eq=False)
class Model:
    """A model: its versions, oldest first, share the admission."""

    name: str
    admission: Admission
    timeout_s: float | None = None
    """Bound for the whole of a request, from its arrival; None for none."""
    versions: dict[str, Version] = field(default_factory=dict)

    def version(self, wanted: str | None = None) -> Version:
        """Return a version that answers; for None, the newest one.

        Raises RequestError: 404 if there is no such version, 503 if it does not answer now.
        """
        if wanted:
            return self._answers(self.known(wanted))
        for version in reversed(self.versions.values()):
            if version.ready:
                return version
        if not self.versions:
            raise RequestError(Problem(f"model '{self.name}'", rule="has no version"), 404)
        return self._answers(next(reversed(self.versions.values())))

    def known(self, wanted: str) -> Version:
        """Return a version in any state. Raises RequestError (404)."""
        version = self.versions.get(wanted)
        if version is None:
            known = ", ".join(f"'{name}'" for name in self.versions)
            rule = f"this server has version {known}" if known else "the model has no version"
            raise RequestError(Problem(f"model '{self.name}', version '{wanted}'", rule=rule), 404)
        return version

    def _answers(self, version: Version) -> Version:
        if not version.ready:
            where = f"model '{self.name}', version '{version.contract.version}'"
            rule = f"is {version.state}" + (f": {version.reason}" if version.reason else "")
            raise RequestError(Problem(where, rule=rule), 503, (("retry-after", "1"),))
        return version


class Repository(Protocol):
    """What loads and unloads models on a client's request."""

    async def load(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Load a model or load it again. Raises RequestError."""

    async def unload(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Unload a model. Raises RequestError."""


class Server:
    """The models of this process. For use on one event loop."""

    def __init__(self, repository: Repository | None = None) -> None:
        self.models: dict[str, Model] = {}
        self.repository = repository
        self.observers: list[Observer] = []
        self.live = True
        self.trace_settings: dict[str, Any] = {}
        self.log_settings: dict[str, Any] = {}

    @property
    def ready(self) -> bool:
        """Whether every model has a version that answers."""
        return all(any(each.ready for each in model.versions.values()) for model in self.models.values())

    def add(self, model: Model) -> None:
        """Serve a model under its name."""
        self.models[model.name] = model

    def model(self, name: str) -> Model:
        """Return a model. Raises RequestError (404)."""
        model = self.models.get(name)
        if model is None:
            known = ", ".join(f"'{each}'" for each in self.models)
            close = nearest(name, self.models)
            raise RequestError(
                Problem(
                    f"model '{name}'",
                    rule=f"this server has {known}" if known else "this server has no model",
                    remedy=f"did you mean '{close}'?" if close and len(self.models) > 1 else None,
                ),
                404,
            )
        return model

    def put(self, version: Version) -> None:
        """Add a version to its model, as the newest: it answers by default from the moment it is ready."""
        versions = self.models[version.contract.name].versions
        versions.pop(version.contract.version, None)
        versions[version.contract.version] = version

    def retire(self, version: Version, reason: str = "unloaded") -> None:
        """Take no more requests for a version; it closes when those that it has are answered."""
        version.state, version.reason = "unloading", reason
        if not version.ongoing:
            _close(version)

    async def infer(self, model: Model, version: Version, request: InferRequest, call: Call) -> Arrays:
        """Return the outputs for a request that is whole.

        Raises RequestError: 429 where too many wait, 504 where its time is up, 500 where the model raised;
        what the model raised is in the log under the id that the message gives.
        """
        async with model.admission:
            assert version.engine is not None
            version.ongoing += 1
            try:
                answer = await version.engine.predict(request.inputs, request.batch)
            finally:
                version.ongoing -= 1
                if version.state == "unloading" and not version.ongoing:
                    _close(version)
        return answer.outputs

    async def stream(
        self, model: Model, version: Version, request: InferRequest, call: Call
    ) -> AsyncIterator[Arrays]:
        """Yield the answers to a request as they come; raises as `infer` does."""
        yield await self.infer(model, version, request, call)

    def refused(self, model: str, version: str, status: int, call: Call) -> None:
        """Tell the observers of a request that could not be read."""

    def index(self, ready: bool = False) -> list[dict[str, str]]:
        """Return the repository's index: all versions, or those that are ready."""
        return [
            {"name": model.name, "version": name, "state": version.state.upper(), "reason": version.reason}
            for model in self.models.values()
            for name, version in model.versions.items()
            if version.ready or not ready
        ]

    async def load(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Load a model on a client's request. Raises RequestError (405) where that is not offered."""
        await self._repository().load(name, parameters)

    async def unload(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Unload a model on a client's request. Raises RequestError (405) where that is not offered."""
        await self._repository().unload(name, parameters)

    def _repository(self) -> Repository:
        if self.repository is None:
            raise RequestError(
                Problem("repository", rule="this server does not load or unload models on request"),
                405,
                (("allow", ""),),
            )
        return self.repository


def _close(version: Version) -> None:
    engine, version.engine, version.state = version.engine, None, "unavailable"
    if engine is not None:
        engine.close()
