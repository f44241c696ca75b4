"""A forward pass without an effect on the model's buffers, such as the statistics of BatchNorm."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Give every buffer of `model` at the end the values that it has now."""
    kept = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    yield
    with torch.no_grad():
        for module, name, buffer, values in kept:
            buffer.copy_(values)
            if getattr(module, name) is not buffer:  # the pass has put another tensor in its place
                setattr(module, name, buffer)
