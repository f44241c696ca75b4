"""Accounting of live tensor bytes, also of fake tensors, to measure the memory of a pass.

In: operators, as they run. Out: the bytes alive, and the most that were. A storage counts once, however many
tensors share it, from the operator that made it until the last of them is gone.
"""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA_BLOCK = 512
"""Bytes to which torch's CUDA allocator rounds each tensor up."""


def device_rounding(on_gpu: bool) -> int:
    """Return the number of bytes to a multiple of which the device's allocator rounds."""
    return CUDA_BLOCK if on_gpu else 1


class Allocations(TorchDispatchMode):
    """A mode that counts the storages that operators make.

    `known` tensors, such as weights, do not count. Gradients that are reported as `finished` count apart.
    """

    def __init__(self, known: Iterable[Tensor], rounding: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        """Bytes alive, without finished gradients."""
        self.gradients = 0
        """Bytes of finished gradients."""
        self.peak = 0
        """Maximum of `live`."""
        self.peak_with_gradients = 0
        """Maximum of `live` and `gradients` together."""
        self._rounding = rounding
        self._storages: dict[int, tuple[weakref.ref[torch.UntypedStorage], int, bool]] = {}
        self._known = {_key(tensor) for tensor in known}

    def add(self, values: Any) -> None:
        """Count the tensors in nested `values` that are not counted yet."""
        for value in tree_leaves(values):
            if isinstance(value, Tensor):
                self._count(value)

    def finished(self, parameter: Tensor) -> None:
        """Count a parameter's complete gradient apart: a hook for `register_post_accumulate_grad_hook`."""
        assert parameter.grad is not None
        self._count(parameter.grad)
        key = _key(parameter.grad)
        reference, size, is_gradient = self._storages[key]
        if not is_gradient:
            self._storages[key] = (reference, size, True)
            self.live -= size
            self.gradients += size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.add(result)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = _key(tensor)
        if key in self._known or key in self._storages:
            return
        size = -(-storage.nbytes() // self._rounding) * self._rounding
        # Weak, so that counting keeps nothing alive.
        self._storages[key] = (weakref.ref(storage, lambda _: self._gone(key)), size, False)
        self.live += size
        self.peak = max(self.peak, self.live)
        self.peak_with_gradients = max(self.peak_with_gradients, self.live + self.gradients)

    def _gone(self, key: int) -> None:
        _, size, is_gradient = self._storages.pop(key)
        if is_gradient:
            self.gradients -= size
        else:
            self.live -= size


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


class FusedAttention(TorchFunctionMode):
    """A mode in which scaled_dot_product_attention takes the memory of its fused kernels, as on a GPU."""

    # It is measured on a CPU, where with dropout the whole matrix of weights would be made.

    def __init__(self, on: bool) -> None:
        super().__init__()
        self._on = on

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._on and func is F.scaled_dot_product_attention:
            named = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
            query, key, value = (_lowered(named[name]) for name in ("query", "key", "value"))
            return _Fused.apply(query, key, value)  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


def _lowered(tensor: Tensor) -> Tensor:
    return tensor.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else tensor


class _Fused(torch.autograd.Function):
    """The shapes and memory of FlashAttention-2 (Dao 2023): it keeps inputs, output, one number per query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query[..., :1]).expand(*query.shape[:-1], value.shape[-1]).contiguous()
        ctx.save_for_backward(
            query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32)
        )
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        query, key, value, _, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
