"""Gradient checkpointing: activations are dropped after the forward pass and recomputed in the backward.

Recomputation changes no result: it starts from the random numbers, buffers and attributes that the forward
pass started from, and leaves those that the forward pass has left.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from raystack.training.blocks import nothing_to_recompute
from raystack.training.snapshot import Snapshot


def recompute(blocks: Sequence[nn.Module]) -> None:
    """Make each block drop its activations and recompute them in the backward pass."""
    if not blocks:
        raise nothing_to_recompute()
    for block in dict.fromkeys(blocks):
        block.forward = partial(_recomputed, block.forward, list(block.modules()))


def _recomputed(forward: Callable[..., Any], modules: Sequence[nn.Module], *args: Any, **kwargs: Any) -> Any:
    # The compiler traces the forward pass once, and what it writes to buffers is written once.
    if torch.compiler.is_compiling():
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=partial(_contexts, modules), **kwargs)


def _contexts(
    modules: Sequence[nn.Module],
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of a forward pass and of its recomputation."""
    before: list[Snapshot] = []

    @contextmanager
    def forward() -> Iterator[None]:
        before.append(Snapshot(modules))
        yield
        before[0].drop_constants()

    @contextmanager
    def again() -> Iterator[None]:
        after = Snapshot(modules)
        before[0].restore()
        try:
            yield
        finally:
            after.restore()

    return forward(), again()
