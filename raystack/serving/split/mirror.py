"""Copies of requests for a version whose answers nobody gets: they are compared with the stable one's."""

import asyncio
import random
from collections.abc import Mapping

import numpy as np

from raystack.config.split import Shadow
from raystack.serving.engine import Arrays
from raystack.serving.protocol import InferRequest, RequestError
from raystack.serving.protocol.tensors import Array
from raystack.serving.split.seen import NEVER_EQUAL, Counts
from raystack.serving.versions import Version

LARGE = 64 * 1024
"""Bytes of outputs from which on they are compared in a thread."""
TOO_MANY = 429
COPY_S = 60.0
"""Seconds that a copy is waited for where requests have no bound."""


class Mirror:
    """Copies to one version. For use on one event loop."""

    def __init__(
        self, shadow: Shadow, others: Mapping[str, Version], counts: Counts, timeout_s: float | None = None
    ) -> None:
        self._shadow, self._others, self._counts = shadow, others, counts
        self._timeout_s = timeout_s or COPY_S
        self._copies: set[asyncio.Task[None]] = set()

    def copy(self, request: InferRequest, outputs: Arrays) -> None:
        """Send a copy of a request that was answered, if it is drawn, and return at once."""
        version = self._others.get(self._shadow.model)
        if version is None or random.random() >= self._shadow.share:
            return
        if len(self._copies) >= self._shadow.max_ongoing:
            self._counts.dropped += 1
            return
        copy = asyncio.get_running_loop().create_task(self._compared(version, request, outputs))
        self._copies.add(copy)
        copy.add_done_callback(self._copies.discard)

    async def _compared(self, version: Version, request: InferRequest, outputs: Arrays) -> None:
        with version:
            if version.engine is None:
                return
            try:
                async with asyncio.timeout(self._timeout_s):
                    other = (await version.engine.predict(request.inputs, request.batch)).outputs
            except RequestError as refused:
                # A version that has too much to do is not a wrong one.
                self._counts.errors += refused.status >= 500
                self._counts.dropped += refused.status == TOO_MANY
                return
            except Exception:
                self._counts.errors += 1
                return
        if sum(array.nbytes for array in outputs.values()) < LARGE:
            found = differences(outputs, other, self._shadow)
        else:
            found = await asyncio.to_thread(differences, outputs, other, self._shadow)
        self._counts.differed(found)


def differences(stable: Arrays, other: Arrays, shadow: Shadow) -> dict[str, float]:
    """Return the largest absolute difference of each output that differs beyond the tolerances."""
    found = {}
    for name, array in stable.items():
        difference = _difference(array, other.get(name), shadow)
        if difference is not None:
            found[name] = difference
    return found


def _difference(stable: Array, other: Array | None, shadow: Shadow) -> float | None:
    if other is None or stable.shape != other.shape:
        return NEVER_EQUAL
    if stable.dtype == object or other.dtype == object:
        return None if np.array_equal(stable, other) else NEVER_EQUAL
    a, b = other.astype(np.float64), stable.astype(np.float64)
    if np.isclose(a, b, rtol=shadow.rtol, atol=shadow.atol, equal_nan=True).all():
        return None
    with np.errstate(invalid="ignore"):
        apart = np.abs(a - b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return float(np.max(np.where(same, 0.0, np.where(np.isnan(apart), NEVER_EQUAL, apart))))
