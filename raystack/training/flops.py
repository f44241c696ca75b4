"""Counts floating point operations, without an effect on what is counted.

torch's FlopCounterMode also follows the modules, with hooks that `torch.autograd.grad` inside of a loss does
not survive. Here only the operators are looked at.
"""

import traceback
from typing import Any

from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCounter(TorchDispatchMode):
    """The number of operations in its block, by torch's own formulas."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._total = 0
        self._known = True

    @property
    def total(self) -> float | None:
        """Number of operations; None if an operator could not be counted."""
        return float(self._total) if self._known else None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if isinstance(func, HigherOrderOperator):
            self._known = False  # what it runs inside is not seen
            return NotImplemented
        others = [each for each in types if each.__torch_dispatch__ is not Tensor.__torch_dispatch__]
        if others:
            # What a subclass of Tensor, such as a jagged one, does is not seen. FSDP's are only gathered.
            self._known &= all(each.__module__.startswith("torch.distributed.") for each in others)
            return NotImplemented
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            try:
                self._total += formula(*args, **kwargs, out_val=result)
            except Exception:  # anything that torch's formula does not expect
                self._known = False
        return result


def met_counter(error: BaseException) -> bool:
    """Return whether `error` came from an operator that was looked at, or is about the looking itself."""
    return FlopCounter.__name__ in str(error) or any(
        frame.filename == __file__ for frame in traceback.extract_tb(error.__traceback__)
    )
