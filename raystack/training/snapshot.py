"""What a forward pass may change in a model beside its parameters, kept so that it can be put back."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor, nn

_OWN = frozenset(vars(nn.Module()))
_DEEPSPEEDS = ("ds_", "applied_pre_backward")
"""Beginnings of the names under which DeepSpeed's hooks count in the user's modules."""
_PLAIN = (bool, int, float, complex, str, tuple, Tensor, type(None))


class Snapshot:
    """Buffers and attributes of modules at one moment, and the state of NumPy's and Python's random numbers.

    Attributes are those that the module's own class has set: numbers, text, tuples and tensors.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._buffers = [(module, dict(module._buffers)) for module in modules]
        self._attributes = [(module, _attributes(module)) for module in modules if _is_own(module)]
        tensors = [
            tensor
            for _, values in (*self._buffers, *self._attributes)
            for tensor in values.values()
            if isinstance(tensor, Tensor) and not tensor.requires_grad
        ]
        self._values = [(tensor, tensor._version, tensor.clone()) for tensor in tensors]
        self._random = random.getstate(), np.random.get_state()

    def drop_constants(self) -> None:
        """Forget the values of the buffers that are not persistent and have not been written to since."""
        # Caches such as masks may be large.
        constant = {
            id(module._buffers[name])
            for module, _ in self._buffers
            for name in module._non_persistent_buffers_set
        }
        self._values = [
            each for each in self._values if id(each[0]) not in constant or each[0]._version != each[1]
        ]

    def restore(self) -> None:
        """Put everything back as it was."""
        for module, buffers in self._buffers:
            module._buffers.update(buffers)
        for module, attributes in self._attributes:
            vars(module).update(attributes)
        for tensor, _, values in self._values:
            tensor.data.copy_(values)  # without a new version: autograd may have saved the tensor
        random.setstate(self._random[0])
        np.random.set_state(self._random[1])


@contextmanager
def kept(model: nn.Module) -> Iterator[None]:
    """Let the block run the model without an effect on it."""
    before = Snapshot(list(model.modules()))
    try:
        yield
    finally:
        before.restore()


def _is_own(module: nn.Module) -> bool:
    """Return whether a module's class is not one of torch's, which keep what they change in buffers."""
    # FSDP gives its units a class of torch's that derives from the user's.
    return any(not each.__module__.startswith(("torch.", "builtins")) for each in type(module).__mro__)


def _attributes(module: nn.Module) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if name not in _OWN and not name.startswith(_DEEPSPEEDS) and isinstance(value, _PLAIN)
    }
