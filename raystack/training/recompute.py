"""Less memory for more work: activations that are forgotten after the forward pass, and computed again in the
backward pass.
"""

from collections.abc import Sequence
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from raystack.training.blocks import nothing_to_recompute


def recompute(blocks: Sequence[nn.Module]) -> None:
    """Let each of the task's blocks forget its activations and compute them again in the backward pass."""
    if not blocks:
        raise nothing_to_recompute()
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
