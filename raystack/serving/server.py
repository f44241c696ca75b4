"""The models of one process and their versions, as every transport sees them.

A transport reads a request with a version's contract and asks `infer`, which admits it, computes it within
its time, counts it, and tells the observers. A new version is `put` beside the old one and answers from then
on; the old one is `retire`d, ends what it has, and closes.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol

from raystack.errors import Problem, RaystackError, nearest
from raystack.serving.admission import RETRY_S, Admission
from raystack.serving.bound import Bound, asked, name
from raystack.serving.engine import Answer, Arrays, LostError
from raystack.serving.guard import Guard
from raystack.serving.observers import Observed, Observer, Transport
from raystack.serving.protocol import InferRequest, RequestError
from raystack.serving.settings import LogSettings, TraceSettings
from raystack.serving.versions import Model, State, Version

__all__ = ["Admission", "Call", "Model", "Repository", "Server", "State", "Version"]

CLIENT_GONE = RequestError(Problem("request", rule="the client went away"), 499)
"""What became of a request that was given up, with nginx's status. Nobody receives it."""
NOT_LOADED = "it is loaded when it is asked for"
UNANSWERED = Answer({}, 0.0, 0.0, 0)

logger = logging.getLogger(__name__)


class Call(NamedTuple):
    """How a request came."""

    protocol: Transport
    started: float
    """`time.perf_counter()` at its arrival."""
    timeout_s: float | None = None
    """The client's own bound, from the moment that the request is whole."""
    trace: str | None = None
    """Header `traceparent`."""
    headers: Mapping[str, str] | None = None
    named: bool = False
    """Whether the client has named the version."""


class Answered(NamedTuple):
    """The outputs for a request, and the version that they are of."""

    outputs: Arrays
    version: Version


class Repository(Protocol):
    """What loads and unloads models on a client's request."""

    async def load(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Load a model or load it again. Raises RequestError."""

    async def unload(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Unload a model. Raises RequestError."""


class Elsewhere(NamedTuple):
    """A model of the server that other processes have."""

    ready: bool = False
    asleep: bool = False
    """Whether it has no replica, until a request comes."""
    version: str = ""
    """Name of its version, where this process knows it."""
    reason: str = ""
    """Why it is not ready, or has no replica."""

    @property
    def awake(self) -> bool:
        """Whether its processes answer now."""
        return self.ready and not self.asleep

    @property
    def state(self) -> str:
        """Its state in the repository's words."""
        return "READY" if self.ready else "UNAVAILABLE"


class Server:
    """The models of this process. For use on one event loop."""

    def __init__(self, repository: Repository | None = None) -> None:
        self.models: dict[str, Model] = {}
        self.elsewhere: dict[str, Elsewhere] = {}
        """Models that this process knows of, and does not have."""
        self.repository = repository
        self.observers: list[Observer] = []
        self.guard: Guard | None = None
        """Who may ask; None for everybody."""
        self.live = True
        self.lineage = False
        """Whether an answer names the run of its version."""
        self.largest: int | None = None
        """Bytes of the largest message over gRPC, in and out; None for no limit of its own."""
        self.closing = asyncio.Event()
        """Set when calls that stay open have to end, because the process does."""
        self.trace_settings = TraceSettings()
        self.log_settings = LogSettings()

    @property
    def ready(self) -> bool:
        """Whether every model has a version that answers."""
        here = all(model.ready for model in self.models.values())
        return self.live and here and all(model.ready for model in self.elsewhere.values())

    @property
    def names(self) -> list[str]:
        """Names of all models."""
        return [*self.models, *self.elsewhere]

    def add(self, model: Model) -> None:
        """Serve a model under its name."""
        self.models[model.name] = model

    def model(self, name: str) -> Model:
        """Return a model. Raises RequestError (404)."""
        model = self.models.get(name)
        if model is None:
            known = ", ".join(f"'{each}'" for each in self.names)
            close = nearest(name[:256], self.names)
            raise RequestError(
                Problem(
                    f"model '{name[:256]}'",
                    rule=f"this server has {known}" if known else "this server has no model",
                    remedy=f"did you mean '{close}'?" if close and len(self.names) > 1 else None,
                ),
                404,
            )
        return model

    def put(self, version: Version) -> None:
        """Add a version to its model, as the newest: it answers by default from the moment it is ready.

        One of the same name is replaced; it answers what it has.
        """
        model = self.models[version.contract.name]
        old = model.versions.pop(version.contract.version, None)
        model.versions[version.contract.version] = version
        if old is not None and old is not version:
            old.retire()

    def retire(self, name: str, version: str, reason: str = "unloaded") -> None:
        """Take no more requests for a version; it closes when those that it has are answered."""
        self.model(name).known(version).retire(reason)

    async def infer(self, model: Model, version: Version, request: InferRequest, call: Call) -> Answered:
        """Return the outputs for a request that is whole, of the version or one that is beside it.

        Raises RequestError: 429 where too many wait, 504 where its time is up, 500 where the model raised;
        what the model raised is in the log under the id that the message gives.
        """
        entered = time.perf_counter()
        split = None if call.named else model.split
        stable = version
        if split is not None:
            version = split.chosen(stable, request, call.headers)
        try:
            limit_s = model.limit_s(asked(request, call.timeout_s))
            if limit_s is None:
                answer = await self._answer(model, version, request)
            else:
                answer = await self._within(limit_s, model, version, request)
        except BaseException as error:
            if isinstance(error, LostError) and version is not stable:
                if version.counts is not None:
                    version.counts.failed(503)
                return await self.infer(model, stable, request, call._replace(named=True))
            refused = self._failed(error, version, request, call)
            if refused is None:
                raise
            raise refused from None
        if version.counts is not None:
            version.counts.answered(answer.wait_s + answer.compute_s)
            if split is not None and version is stable:
                split.copy(request, answer.outputs)
        now = time.perf_counter()
        # What it waited for its slot is part of the wait.
        wait_s = max(0.0, now - entered - answer.compute_s)
        version.statistics.answered(request.batch, now - call.started, wait_s, answer.compute_s)
        if self.observers:
            self._tell(call, version, request, answer._replace(wait_s=wait_s))
        return Answered(answer.outputs, version)

    async def stream(
        self, model: Model, version: Version, request: InferRequest, call: Call
    ) -> AsyncGenerator[Arrays, None]:
        """Yield the answers to a request as they come; raises as `infer` does.

        The bound is that of the last answer, which is the one that observers are told.
        """
        outputs, compute_s = UNANSWERED.outputs, 0.0
        try:
            bound = Bound(model.limit_s(asked(request, call.timeout_s)), request)
            with version:
                async with bound.until():
                    await model.admission.wait()
                try:
                    assert version.engine is not None
                    async with aclosing(version.engine.stream(request.inputs, request.batch)) as answers:
                        while True:
                            began = time.perf_counter()
                            async with bound.until():
                                answer = await anext(answers, None)
                            compute_s += time.perf_counter() - began
                            if answer is None:
                                break
                            yield (outputs := answer)
                finally:
                    model.admission.leave()
        except BaseException as error:
            refused = self._failed(error, version, request, call)
            if refused is None:
                raise
            raise refused from None
        total_s = time.perf_counter() - call.started
        version.statistics.answered(request.batch, total_s, max(0.0, total_s - compute_s), compute_s)
        self._tell(call, version, request, Answer(outputs, total_s - compute_s, compute_s, request.batch))

    async def _within(self, limit_s: float, model: Model, version: Version, request: InferRequest) -> Answer:
        async with Bound(limit_s, request).until():
            return await self._answer(model, version, request)

    async def _answer(self, model: Model, version: Version, request: InferRequest) -> Answer:
        admission = version.admission or model.admission
        with version:
            if not admission.enter():
                await admission.wait()
            try:
                assert version.engine is not None
                return await version.engine.predict(request.inputs, request.batch)
            finally:
                admission.leave()

    def _failed(
        self, error: BaseException, version: Version, request: InferRequest, call: Call
    ) -> RequestError | None:
        """Count what ended a request and tell the observers; return the answer, None where nobody waits."""
        refused = _refusal(error, version, request)
        if version.counts is not None:
            version.counts.failed((refused or CLIENT_GONE).status)
        version.statistics.failed(time.perf_counter() - call.started)
        self._tell(call, version, request, refused or CLIENT_GONE)
        return refused

    def refused(self, call: Call, version: Version, error: RequestError) -> None:
        """Count a request that could not be read, and tell the observers."""
        version.statistics.failed(time.perf_counter() - call.started)
        self._tell(call, version, None, error)

    def _tell(
        self, call: Call, version: Version, request: InferRequest | None, outcome: Answer | RequestError
    ) -> None:
        """Tell the observers what became of a request."""
        total_s = time.perf_counter() - call.started
        answer, error = (outcome, None) if isinstance(outcome, Answer) else (UNANSWERED, outcome)
        seen = Observed(
            model=version.contract.name,
            version=version.contract.version,
            run=version.run,
            id=request.id if request else None,
            protocol=call.protocol,
            request=request,
            outputs=answer.outputs if error is None else None,
            status=error.status if error else 200,
            started=time.time() - total_s,
            wait_s=answer.wait_s,
            compute_s=answer.compute_s,
            total_s=total_s,
            batch=answer.batch,
            trace=call.trace,
            headers=call.headers,
            error=str(error) if error else None,
        )
        for observer in self.observers:
            observer.observed(seen)

    def index(self, ready: bool = False) -> list[dict[str, str]]:
        """Return the repository's index: all versions, or those that are ready.

        Models of other processes are left out if these can tell of them.
        """
        own = [
            {"name": model.name, "version": name, "state": version.state.upper(), "reason": version.reason}
            for model in self.models.values()
            for name, version in model.present.items()
            if version.ready or not ready
        ]
        if not ready:
            own += [
                {
                    "name": model.name,
                    "version": "",
                    "state": "UNAVAILABLE",
                    "reason": model.reason or NOT_LOADED,
                }
                for model in self.models.values()
                if model.on_demand and not model.versions
            ]
        return own + [
            {"name": name, "version": model.version, "state": model.state, "reason": model.reason}
            for name, model in self.elsewhere.items()
            if not model.awake and (model.ready or not ready)
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


def _refusal(error: BaseException, version: Version, request: InferRequest) -> RequestError | None:
    """The answer for what ended a request; None where nobody waits for one any more."""
    if isinstance(error, RequestError):
        return error
    if not isinstance(error, Exception):
        return None
    if isinstance(error, LostError):
        where = f"model '{version.contract.name}', version '{version.contract.version}'"
        rule = str(error) or "no replica answers"
        return RequestError(Problem(where, rule=rule), 503, (("retry-after", str(RETRY_S)),))
    entry = uuid.uuid4().hex
    model = f"model '{version.contract.name}', version '{version.contract.version}'"
    logger.error("%s to %s failed, id %s", name(request), model, entry, exc_info=error)
    reason = str(error) if isinstance(error, RaystackError) else "the model failed"
    return RequestError(
        Problem(name(request), rule=reason, remedy=f"the server's log has more under id {entry}"), 500
    )
