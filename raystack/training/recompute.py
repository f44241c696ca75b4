"""Gradient checkpointing: activations are dropped after the forward pass and recomputed in the backward."""

from collections.abc import Sequence
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from raystack.training.blocks import nothing_to_recompute


def recompute(blocks: Sequence[nn.Module]) -> None:
    """Make each block drop its activations and recompute them in the backward pass."""
    if not blocks:
        raise nothing_to_recompute()
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
