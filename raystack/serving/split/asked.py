"""What a replica of a version beside a model is to the replicas of the model, and these to the driver."""

from typing import TYPE_CHECKING

from raystack.serving.engine import Arrays
from raystack.serving.protocol import RequestError
from raystack.serving.split.remote import Described, Failed

if TYPE_CHECKING:
    from raystack.serving.host import Host
    from raystack.serving.split.seen import Seen


class Asked:
    """Methods of a replica that are called through Serve's handles."""

    _host: "Host"

    async def compute(self, inputs: Arrays, size: int) -> tuple[object, ...]:
        """Return the answer of the version that answers here. Raises what the model does."""
        try:
            return await self._host.compute(inputs, size)
        except RequestError as refused:
            return Failed(refused.problem, refused.status, refused.headers)

    async def describe(self) -> Described:
        """Return what the version is that answers here."""
        version = self._host.version
        assert version.engine is not None
        return Described(
            version.contract.version, version.engine.signature, version.engine.max_size, version.run
        )

    async def seen(self) -> "list[Seen]":
        """Return the counters of the versions that this replica asks, and of its own."""
        return self._host.split.seen()
