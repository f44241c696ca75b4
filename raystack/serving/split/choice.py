"""Which version answers a request: a point in [0, 1) falls into the interval of one of them."""

import hashlib
import random
from collections.abc import Mapping

from raystack.config.split import Sticky
from raystack.serving.protocol import InferRequest

BYTES = 8


class Choice:
    """The shares of the versions beside the stable one, as intervals in the order of the mapping.

    The same key is always at the same point. So with one version no key moves back while its share grows,
    and as it shrinks only keys of that version move, back to the stable one. Of several versions that holds
    for the last one; where the share of an earlier one changes, the intervals after it are shifted.
    """

    def __init__(self, model: str, shares: Mapping[str, float], sticky: Sticky | None) -> None:
        self._model, self._sticky = model.encode(), sticky
        self._bounds: list[tuple[float, str]] = []
        upper = 0.0
        for version, share in shares.items():
            upper += share
            self._bounds.append((upper, version))
        if self._bounds and upper > 1 - 1e-9:  # a sum of floats may miss 1
            self._bounds[-1] = (1.0, self._bounds[-1][1])
        self._any = upper > 0

    def version(self, request: InferRequest, headers: Mapping[str, str] | None) -> str | None:
        """Return the version that answers; None for the stable one. Without a key it is drawn."""
        if not self._any:
            return None
        key = self._key(request, headers)
        point = random.random() if key is None else self.point(key)
        return next((version for upper, version in self._bounds if point < upper), None)

    def point(self, key: str) -> float:
        """Return the point of a key."""
        digest = hashlib.blake2b(key.encode(), digest_size=BYTES, key=self._model[:64]).digest()
        # The upper 53 bits, which a float has exactly, so that it is below 1.
        return (int.from_bytes(digest) >> 11) / 2**53

    def _key(self, request: InferRequest, headers: Mapping[str, str] | None) -> str | None:
        if self._sticky is None:
            return None
        if self._sticky.header is not None:
            return headers.get(self._sticky.header.lower()) if headers is not None else None
        array = request.inputs.get(self._sticky.input or "")
        return None if array is None else str(array[0].tolist() if hasattr(array[0], "tolist") else array[0])
