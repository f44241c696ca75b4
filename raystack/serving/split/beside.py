"""The versions beside the one that a replica serves: those it can reach, and what they have done.

Independent of Ray: what reaches a version is brought along.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from raystack.config.serving import Serving
from raystack.config.split import Split
from raystack.errors import Problem, RaystackError, ServingError
from raystack.serving.admission import Admission
from raystack.serving.engine import Arrays
from raystack.serving.protocol import InferRequest
from raystack.serving.split.choice import Choice
from raystack.serving.split.fit import misfit
from raystack.serving.split.mirror import Mirror
from raystack.serving.split.seen import Counts, Seen
from raystack.serving.versions import Model, Version

AGAIN_S = 1.0
"""Seconds after which a version is tried again that could not be reached."""
SETTLES_S = 10.0
"""Seconds that a new replica waits for the other versions before it answers."""

logger = logging.getLogger(__name__)

Reach = Callable[[str, Serving], Awaitable[Version]]
"""Returns a version that other processes have, by its reference. Raises ServingError if none answers."""


@dataclass(frozen=True)
class Shares:
    """Who answers a request that names no version, and who gets a copy of it."""

    choice: Choice
    others: Mapping[str, Version]
    """Versions by reference, as far as they are reached; the stable one answers for others."""
    mirror: Mirror | None

    def chosen(self, stable: Version, request: InferRequest, headers: Mapping[str, str] | None) -> Version:
        """Return the version that answers a request."""
        reference = self.choice.version(request, headers)
        return stable if reference is None else self.others.get(reference, stable)

    def copy(self, request: InferRequest, outputs: Arrays) -> None:
        """Send a copy of what the stable version has answered, if there is a shadow."""
        if self.mirror is not None:
            self.mirror.copy(request, outputs)


class Beside:
    """The split of one replica. For use on one event loop."""

    def __init__(self, model: Model, reach: Reach, replica: str) -> None:
        self._model, self._reach, self._replica = model, reach, replica
        self._others: dict[str, Version] = {}
        self._counts: dict[str, Counts] = {}
        self._shares: Mapping[str, float] = {}
        self._split: tuple[Split, str, float | None] | None = None
        self._reaching: asyncio.Task[None] | None = None

    async def prepare(self, serving: Serving, stable: Version) -> None:
        """Reach all versions of the section. Raises ServingError for one that does not answer or fit."""
        if serving.split is not None:
            await self._reached(serving, stable, serving.split.references)

    def apply(self, serving: Serving, stable: Version) -> None:
        """Give each version its share. Those that are not reached get theirs as soon as they are."""
        if self._reaching is not None:
            self._reaching.cancel()
            self._reaching = None
        split = serving.split
        self._leave(() if split is None else split.references)
        if split is None or serving.model is None:
            self._model.split, self._split, stable.counts = None, None, None
            return
        stable.counts = self._of(serving.model)
        asked = split, serving.model, serving.timeout_s
        if self._split != asked:
            self._split, shadow, mirror = asked, split.shadow, None
            if shadow is not None:
                mirror = Mirror(shadow, self._others, self._of(shadow.model), serving.timeout_s)
            choice = Choice(self._model.name, split.models, split.sticky)
            self._model.split = Shares(choice, self._others, mirror)
        if any(reference not in self._others for reference in split.references):
            self._reaching = asyncio.get_running_loop().create_task(self._follow(serving, stable))

    async def settle(self) -> None:
        """Wait until every version has its share, or a while: a new replica answers as the others do."""
        if self._reaching is not None:
            await asyncio.wait([self._reaching], timeout=SETTLES_S)

    def discard(self) -> None:
        """Let go of versions that were prepared and got no share."""
        self._leave(() if self._split is None else self._split[0].references)

    def seen(self) -> list[Seen]:
        """Return the counters of all versions since the replica started."""
        return [counts.seen(self._replica, reference) for reference, counts in self._counts.items()]

    @property
    def weights(self) -> Mapping[str, float]:
        """Shares by the names of the versions, that of the stable one left out."""
        if self._split is None:
            return {}
        models = self._split[0].models
        return {
            version.contract.version: models[reference]
            for reference, version in list(self._others.items())
            if reference in models
        }

    @property
    def copies(self) -> Mapping[str, Counts]:
        """Counters by the names of the versions beside the stable one."""
        return {
            version.contract.version: self._counts[reference]
            for reference, version in list(self._others.items())
        }

    def _of(self, reference: str) -> Counts:
        return self._counts.setdefault(reference, Counts())

    def _leave(self, staying: Iterable[str]) -> None:
        """Let go of the versions that are not among those that stay."""
        staying = set(staying)
        for reference in [reference for reference in self._others if reference not in staying]:
            version = self._others.pop(reference)
            del self._model.others[version.contract.version]
            version.retire("not beside the model any more")

    async def _reached(self, serving: Serving, stable: Version, references: Iterable[str]) -> None:
        for reference in references:
            if reference in self._others:
                continue
            version = await self._reach(reference, serving)
            assert version.engine is not None
            problem = misfit(reference, stable.contract.signature, version.engine.signature)
            if problem is not None:
                raise ServingError(problem)
            if reference in self._others:  # meanwhile
                continue
            if version.contract.version in {stable.contract.version, *self._model.others}:
                # Folders of the same training step would be the same version.
                digest = hashlib.sha256(reference.encode()).hexdigest()[:6]
                own = replace(version.contract, version=f"{version.contract.version}-{digest}")
                version.contract = own
            # A version that hangs takes no slots of the others.
            version.admission = Admission(serving.max_ongoing, serving.max_queued)
            version.state, version.counts = "ready", self._of(reference)
            self._others[reference] = version
            self._model.others[version.contract.version] = version

    async def _follow(self, serving: Serving, stable: Version) -> None:
        """Reach all versions, however long it takes: none waits for another."""
        assert serving.split is not None
        async with asyncio.TaskGroup() as group:
            for reference in serving.split.references:
                group.create_task(self._reached_at_last(serving, stable, reference))

    async def _reached_at_last(self, serving: Serving, stable: Version, reference: str) -> None:
        said = ""
        while True:
            try:
                await self._reached(serving, stable, [reference])
                return
            except RaystackError as error:
                if str(error) != said:
                    logger.error("%s; the version that is served answers its requests", error)
                said = str(error)
            await asyncio.sleep(AGAIN_S)


async def nowhere(reference: str, serving: Serving) -> Version:
    """Reach no version, where there are no other processes."""
    raise ServingError(Problem(reference, rule="there are no other replicas than those of the model"))
