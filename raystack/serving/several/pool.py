"""Models that share a process: each is loaded with its first request, and at most so many are in memory.

Where one more is asked for, the one that was used least recently goes first. It answers what it has, and
requests for it that come then wait until it is loaded again.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from raystack.config.serving import Serving
from raystack.errors import Problem, RaystackError
from raystack.serving.admission import Admission
from raystack.serving.protocol import RequestError
from raystack.serving.server import Model, Server, Version

AGAIN_S = 10.0
"""Seconds in which a model that could not be loaded is not tried again."""

logger = logging.getLogger(__name__)

Read = Callable[[Serving], Awaitable[Version]]
"""Loads the version of a section with its `name` and `model`. Raises RaystackError."""


@dataclass(eq=False)
class Place:
    """One of the models."""

    serving: Serving
    model: Model
    version: Version | None = None
    """None while it is not loaded."""
    users: int = 0
    leaving: bool = False
    """Whether it takes no more requests before it has been loaded again."""
    loading: asyncio.Lock = field(default_factory=asyncio.Lock)
    failed: float | None = None
    """When it could not be loaded, as `time.monotonic()`."""


class Pool:
    """The models of this process that share it. For use on one event loop."""

    def __init__(self, server: Server, read: Read) -> None:
        self._server, self._read = server, read
        self._places: dict[str, Place] = {}
        self._loaded: OrderedDict[str, Place] = OrderedDict()
        """Those that are loaded, the one that was used least recently first."""
        self._held, self._most = 0, 0
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    async def offer(self, models: Mapping[str, Serving], most: int) -> None:
        """Offer models by their names, at most `most` of them loaded. Others and those that change go."""
        self._most = most
        for name, place in list(self._places.items()):
            if models.get(name) != place.serving:
                await self._evict(place)
                del self._places[name], self._server.models[name]
        for name, serving in models.items():
            if name not in self._places:
                admission = Admission(serving.max_ongoing, serving.max_queued)
                model = Model(name, admission, serving.timeout_s, on_demand=True)
                self._places[name] = Place(serving, model)
                self._server.add(model)
        await self._make_room(most)

    @asynccontextmanager
    async def use(self, name: str) -> AsyncGenerator[None, None]:
        """Have a model loaded during the block; nothing for one that is not of the pool.

        Raises RequestError (503) with the reason if it cannot be loaded.
        """
        place = self._places.get(name)
        if place is None:
            yield
            return
        while place.version is None or place.leaving:
            await self._load(place)
        place.users += 1
        self._loaded.move_to_end(name)
        try:
            yield
        finally:
            place.users -= 1
            self._tell()

    async def load(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Load a model. Raises RequestError: 404 for an unknown one, 503 with the reason if it cannot be."""
        place = self._known(name)
        place.failed = None
        async with self.use(name):
            pass

    async def unload(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Free a model's memory, until it is asked for again. Raises RequestError (404)."""
        await self._evict(self._known(name))

    def _known(self, name: str) -> Place:
        self._server.model(name)
        return self._places[name]

    async def _load(self, place: Place) -> None:
        async with place.loading:
            while place.leaving:
                await self._changed.wait()
            if place.version is not None:
                return
            if place.failed is not None and time.monotonic() - place.failed < AGAIN_S:
                raise _refused(place)
            async with self._turn:
                await self._make_room(self._most - 1)
                self._held += 1
            try:
                version = await self._read(place.serving)
            except BaseException as error:
                self._held -= 1
                self._tell()
                if not isinstance(error, RaystackError):
                    raise
                place.failed, place.model.reason = time.monotonic(), str(error)
                logger.error("%s: %s", place.serving.model, error)
                raise _refused(place) from None
            if self._places.get(place.model.name) is not place:  # it is not offered any more
                version.retire()
                self._held -= 1
                self._tell()
                raise _refused(place)
            place.version, place.failed, place.model.reason = version, None, ""
            version.state = "ready"
            self._server.put(version)
            self._loaded[place.model.name] = place

    async def _make_room(self, most: int) -> None:
        """Let models go until at most `most` are loaded or being loaded, those first that nobody uses."""
        while self._held > most:
            staying = [place for place in self._loaded.values() if not place.leaving]
            idle = next((place for place in staying if not place.users), None)
            if idle is not None or staying:
                await self._evict(idle or staying[0])
            else:
                await self._changed.wait()

    async def _evict(self, place: Place) -> None:
        if place.version is None or place.leaving:
            return
        place.leaving = True
        try:
            while place.users:
                await self._changed.wait()
            name, version = place.model.name, place.version
            version.retire()
            del place.model.versions[version.contract.version], self._loaded[name]
            place.version = None
            self._held -= 1
        finally:
            place.leaving = False
            self._tell()

    def _tell(self) -> None:
        """Have those that wait look again."""
        self._changed.set()
        self._changed = asyncio.Event()


def _refused(place: Place) -> RequestError:
    rule = f"cannot be loaded: {place.model.reason or 'the server does not have it any more'}"
    problem = Problem(f"model '{place.model.name}'", rule=rule)
    return RequestError(problem, 503)
