"""What one replica serves: a model as its settings say, and beside it the version that is to come.

A version is loaded beside the one that answers, and answers from the moment it is ready. One that cannot be
loaded changes nothing. Independent of Ray.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from raystack import registry
from raystack.checkpoint.statistics import read_statistics
from raystack.config.graph import Graph
from raystack.config.serving import Serving
from raystack.config.tracking import Tracking
from raystack.errors import Problem, RaystackError, ServingError
from raystack.serving.endpoint import Endpoint, Send
from raystack.serving.engine import Answer, Arrays, ModelEngine
from raystack.serving.graph.load import accepted, blank, read_graph
from raystack.serving.guard import guard, renewed
from raystack.serving.load import Load
from raystack.serving.observers import Watcher
from raystack.serving.pin import version_of
from raystack.serving.predictor import Predictor
from raystack.serving.protocol import Contract
from raystack.serving.rest.body import Limits, Message, Receive
from raystack.serving.server import Admission, Model, Server, Version
from raystack.serving.split.beside import Beside, Reach, nowhere
from raystack.serving.split.samples import samples
from raystack.serving.telemetry import end, watched

IN_VERSION = ("model", "graph", "threads", "precision", "compile", "warm_up", "batching", "verify")
"""Settings that a loaded version has in it; another value of one takes another load."""

PROBE_S = 10.0
"""Seconds between two checks by prediction."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A version, and what it was loaded for."""

    serving: Serving
    version: Version
    probe: Callable[[], Awaitable[object]]
    """A prediction for one sample of zeros."""

    def fits(self, serving: Serving) -> bool:
        """Whether it is what `serving` asks for."""
        return all(getattr(self.serving, key) == getattr(serving, key) for key in IN_VERSION)


class Host:
    """A server of one model. For use on one event loop."""

    def __init__(
        self,
        name: str,
        tracking: Tracking,
        *,
        device: str = "cpu",
        replica: str = "0",
        reach: Reach = nowhere,
    ) -> None:
        self.server = Server()
        self._model = Model(name, Admission(1, 1))
        self.load = Load(self._model)
        self.split = Beside(self._model, reach, replica)
        self.server.add(self._model)
        self.endpoint = Endpoint(self.server)
        self._name, self._tracking, self._device, self._replica = name, tracking, device, replica
        self._loaded: Loaded | None = None
        self._beside: Loaded | None = None
        self._follows: asyncio.Task[None] | None = None
        self._asked: Serving | None = None
        self._watchers: list[Watcher] = []
        self._checked = 0.0
        self._answered: int | None = None
        """Requests that were answered at the last check; None if the version is new."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application."""
        await self.endpoint(scope, receive, send)

    async def prepare(self, serving: Serving) -> str:
        """Load what is asked for beside what answers, unless it is the same; return its version's name.

        Raises RaystackError if it cannot be served.
        """
        guard(serving.tokens)
        prepared = self._loaded
        if prepared is None or not prepared.fits(serving):
            self.discard()
            prepared = self._beside = await self._load(serving)
        await self.split.prepare(serving, prepared.version)
        return prepared.version.contract.version

    def hand_over(self) -> Version:
        """Return the version that was prepared, which is another server's from now on."""
        assert self._beside is not None
        beside, self._beside = self._beside, None
        return beside.version

    def discard(self) -> None:
        """Let go of what was prepared."""
        beside, self._beside = self._beside, None
        if beside is not None:
            beside.version.retire()
        self.split.discard()

    async def apply(self, serving: Serving) -> None:
        """Serve what is asked for: at once if it was prepared, else from the moment it is loaded.

        Raises RaystackError if the first version cannot be served. Where a later one cannot, that is logged,
        and what answers goes on.
        """
        if self._follows is not None:
            self._follows.cancel()
            self._follows = None
        if self._loaded is None:
            self._take(await self._load(serving), serving)
            await self.split.settle()
        elif self._loaded.fits(serving):
            self.split.apply(serving, self._loaded.version)
            self.discard()  # after it, so that what was reached for it stays
        elif self._beside is not None and self._beside.fits(serving):
            self._take(self._beside, serving)
        else:
            self._follows = asyncio.get_running_loop().create_task(self._follow(serving))
        self._limit(serving)

    @property
    def version(self) -> Version:
        """The version that answers."""
        return self._model.version()

    async def compute(self, inputs: Arrays, size: int) -> Answer:
        """Return the outputs for arrays that fit. Raises RequestError, and what the model does."""
        version = self.version
        began = time.perf_counter()
        with version:
            async with self._model.admission:
                assert version.engine is not None
                answer = await version.engine.predict(inputs, size)
        # Health checks and the autoscaler go by them.
        total_s = time.perf_counter() - began
        version.statistics.answered(size, total_s, answer.wait_s, answer.compute_s)
        return answer

    async def check(self) -> None:
        """Raise if the model fails a prediction, unless it has answered since or the settings want none."""
        loaded = self._loaded
        if loaded is None or self._asked is None or self._asked.health == "process":
            return
        now = time.monotonic()
        if now - self._checked < PROBE_S:
            return
        self._checked = now
        answered = loaded.version.statistics.success.count
        if answered == self._answered:
            await loaded.probe()
        self._answered = answered

    def close(self) -> None:
        """End what works beside the requests."""
        end(self._watchers)
        self._watchers, self.server.observers = [], []

    async def _follow(self, serving: Serving) -> None:
        try:
            self._take(await self._load(serving), serving)
        except RaystackError as error:
            assert self._loaded is not None
            stays = self._loaded.version.contract.version
            logger.error("%s: %s; version %s answers on", serving.model, error, stays)

    def _take(self, loaded: Loaded, serving: Serving) -> None:
        """Have a version answer, with those beside it, and let the one before end what it has."""
        before, self._loaded, self._beside = self._loaded, loaded, None
        self._answered = None
        loaded.version.state = "ready"
        self.server.put(loaded.version)
        self.split.apply(serving, loaded.version)
        if before is not None:
            before.version.retire(f"replaced by version {loaded.version.contract.version}")

    def _limit(self, serving: Serving) -> None:
        """Take over what changes without a load."""
        self._model.admission.limit(serving.max_ongoing, serving.max_queued)
        self._model.timeout_s = serving.timeout_s
        self.server.largest, self.server.lineage = serving.body_bytes, serving.lineage
        self.endpoint = Endpoint(self.server, Limits(serving.body_bytes, serving.body_s))
        before, self._asked = self._asked, serving
        if before is None or serving.tokens != before.tokens:
            self.server.guard = renewed(self.server.guard, serving.tokens, first=before is None)
        if before is None or _watching(serving) != _watching(before):
            first = before is None
            sources = [partial(samples, self._name, self.split)]
            self._watchers = watched(
                self._watchers, serving, self.server, self._replica, first=first, sources=sources
            )

    async def _load(self, serving: Serving) -> Loaded:
        zeros: Callable[[int], Arrays]
        if serving.graph is not None:
            zeros, version = await self._read_graph(serving, serving.graph)
        else:
            predictor, version = await asyncio.to_thread(self._read, serving)
            zeros = predictor.zeros
        engine = version.engine
        assert engine is not None
        try:
            for _ in range(serving.warm_up):
                await engine.predict(zeros(engine.max_size), engine.max_size)
        except BaseException:
            version.retire()
            raise
        return Loaded(serving, version, lambda: engine.predict(zeros(1), 1))

    async def _read_graph(self, serving: Serving, graph: Graph) -> tuple[Callable[[int], Arrays], Version]:
        engine, digest = await asyncio.to_thread(read_graph, serving, graph, self._tracking, self._device)
        version = Version(Contract(self._name, digest, engine.signature), engine)
        try:
            free = await accepted(engine)
        except BaseException:
            version.retire()
            raise
        return lambda size: blank(engine, size, free), version

    def _read(self, serving: Serving) -> tuple[Predictor, Version]:
        if serving.model is None:
            raise ServingError(Problem("serving.model", rule="there is no model to serve"))
        folder = registry.resolve(serving.model, self._tracking)
        predictor = Predictor.read(
            folder,
            self._device,
            serving.threads,
            precision=serving.precision,
            compiled=serving.compile,
            verify=serving.verify,
        )
        contract = Contract(
            self._name, version_of(serving.model) or str(predictor.card.step), predictor.signature
        )
        batching = serving.batching
        engine = ModelEngine(
            predictor.signature, predictor.forward, batching.max_size, batching.wait_ms / 1000
        )
        return predictor, Version(contract, engine, run=predictor.card.run_id, data=read_statistics(folder))


def _watching(serving: Serving) -> tuple[object, ...]:
    return serving.telemetry, serving.payloads, serving.drift
