"""Gradient checkpointing recomputes; it changes nothing."""

import copy
import pickle
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raystack.training.recompute import recompute


class Counting(nn.Module):
    """What a forward pass may change: a number, a buffer in place, a buffer by another, and a `.data`."""

    average: Tensor
    passes: Tensor
    seen: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls, self.largest = nn.Linear(4, 4), 0, 1.0
        self.register_buffer("average", torch.zeros(4))
        self.register_buffer("passes", torch.tensor(0))
        self.register_buffer("seen", None)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.largest = max(self.largest, float(x.detach().abs().max()))
        self.average.data.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        self.passes = self.passes + 1
        self.seen = x.detach()[:1] if self.seen is None else torch.cat([self.seen, x.detach()[:1]])
        result: Tensor = torch.tanh(self.inner(x / self.largest) - self.average / self.calls)
        return result


class Lucky(nn.Module):
    """Draws from every generator."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        factor = 1 + random.random() + float(np.random.random_sample())
        result: Tensor = torch.tanh(nn.functional.dropout(self.inner(x) * factor, 0.5))
        return result


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "batch norm": lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh()),
    "spectral norm": lambda: nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)), nn.Tanh()
    ),
    "counting": Counting,
    "lucky": Lucky,
}


def trained(block: nn.Module, *, recomputed: bool) -> tuple[list[Tensor], nn.Module]:
    """Three steps; the gradients of each, and the block."""
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    if recomputed:
        recompute([block, block])
    gradients = []
    for _ in range(3):
        block.zero_grad()
        # Through the block twice, as shared layers are.
        block(block(torch.randn(8, 4, requires_grad=True))).pow(2).sum().backward()
        gradients += [one.grad.clone() for one in block.parameters() if one.grad is not None]
        with torch.no_grad():
            for one in block.parameters():
                if one.grad is not None:
                    one.sub_(0.01 * one.grad)
    return gradients, block


@pytest.mark.parametrize("name", BLOCKS)
def test_recomputation_changes_no_gradient_and_no_state(name: str) -> None:
    torch.manual_seed(1)
    block = BLOCKS[name]()
    expected, plain = trained(copy.deepcopy(block), recomputed=False)
    found, again = trained(block, recomputed=True)
    assert expected
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(plain.buffers(), again.buffers(), strict=True))
    if isinstance(plain, Counting) and isinstance(again, Counting):
        assert (again.calls, again.largest) == (plain.calls, plain.largest)
        assert plain.calls == 6
        assert plain.seen is not None
        assert len(plain.seen) == 6


def test_a_block_can_still_be_copied_and_pickled() -> None:
    block = BLOCKS["counting"]()
    recompute([block])
    for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        twin(torch.randn(8, 4)).sum().backward()
        assert twin.calls == 1
    assert block.calls == 0, "a copy is not bound to what it was copied from"
