"""Evaluation mode for a while: each module then has its own mode back, frozen ones theirs."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set `model` to eval mode for the block, and each of its modules back to the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()  # a statement: DeepSpeed's engine returns None from it
    try:
        yield
    finally:
        for module, training in modes:
            # By its own method, outer before inner, because `train` may do more than to set the mode.
            if module.training != training:
                module.train(training)
        for module, training in modes:
            module.training = training  # where a `train` of the task's own has decided otherwise
