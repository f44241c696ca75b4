"""Less memory for more work: activations that are forgotten after the forward pass, and computed again in the
backward pass.
"""

from collections.abc import Sequence
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from raystack.errors import ConfigError, Problem


def recompute(blocks: Sequence[nn.Module]) -> None:
    """Let each of the task's blocks forget its activations and compute them again in the backward pass."""
    if not blocks:
        raise no_blocks()
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def no_blocks() -> ConfigError:
    """What recomputation is refused with where the task has no blocks."""
    rule = "the task has to say which blocks to recompute"
    return ConfigError(
        Problem("training.gradient_checkpointing", rule=rule, remedy="give it a method blocks(model)")
    )
