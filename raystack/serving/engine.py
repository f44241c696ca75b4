"""What computes a model's answers: arrays in, arrays out, for any transport."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol

from raystack.serving.batcher import Batcher
from raystack.serving.protocol.tensors import Array
from raystack.task import Signature

Arrays = Mapping[str, Array]


class Answer(NamedTuple):
    """The outputs of one request, and what they took."""

    outputs: Arrays
    wait_s: float
    """Seconds until its first forward pass started."""
    compute_s: float
    """Seconds in forward passes."""
    batch: int
    """Number of samples in the forward pass that it shared; in the largest, if it took several."""


class Engine(Protocol):
    """What answers for one version of a model."""

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""

    def predict(self, inputs: Arrays, size: int) -> Awaitable[Answer]:
        """Return the outputs for `size` samples. Raises the errors of the model."""

    def stream(self, inputs: Arrays, size: int) -> AsyncIterator[Arrays]:
        """Yield answers as they come, at least one."""

    def close(self) -> None:
        """Free what it holds. Called once, when no request is left."""


class ModelEngine:
    """A model in this process: requests that arrive together share a forward pass."""

    def __init__(
        self, signature: Signature, forward: Callable[[Arrays], Arrays], max_size: int, wait_s: float
    ) -> None:
        self.signature = signature
        self._batcher = Batcher(forward, max_size, wait_s)

    async def predict(self, inputs: Arrays, size: int) -> Answer:
        """Return the outputs for `size` samples. Raises the errors of `forward`."""
        return Answer(await self._batcher.predict(inputs, size), 0.0, 0.0, size)

    async def stream(self, inputs: Arrays, size: int) -> AsyncIterator[Arrays]:
        """Yield the one answer."""
        yield (await self.predict(inputs, size)).outputs

    def close(self) -> None:
        """End the thread of the forward passes."""
        self._batcher.close()
