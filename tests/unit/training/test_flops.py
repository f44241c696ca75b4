"""Operations are counted as torch counts them, and what is counted does not notice."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from raystack.training.flops import FlopCounter


class Twice(torch.autograd.Function):
    """An operator of the user's own."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:
        return grad * 2


def plain(model: nn.Module, x: Tensor) -> Tensor:
    result: Tensor = model(x).square().mean()
    return result


def penalty(model: nn.Module, x: Tensor) -> Tensor:
    x = x.requires_grad_()
    found = model(x)
    (slope,) = torch.autograd.grad(found.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.square().sum(), x, create_graph=True)
    result: Tensor = found.square().mean() + slope.square().sum() + bend.square().sum()
    return result


def jagged(model: nn.Module, x: Tensor) -> Tensor:
    rows = torch.nested.nested_tensor([x[:2], x[2:5]], layout=torch.jagged)
    result: Tensor = model(rows).values().square().mean()
    return result


def vectorised(model: nn.Module, x: Tensor) -> Tensor:
    slopes = torch.func.vmap(torch.func.grad(lambda row: model(row).sum()))(x)
    result: Tensor = slopes.square().mean() + plain(model, x)
    return result


def attention(model: nn.Module, x: Tensor) -> Tensor:
    result: Tensor = F.scaled_dot_product_attention(x[None, None], x[None, None], model(x)[None, None]).mean()
    return result


LOSSES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "plain": plain,
    "penalty": penalty,
    "jagged": jagged,
    "vectorised": vectorised,
    "attention": attention,
    "compiled": lambda model, x: plain(torch.compile(model, backend="eager"), x),  # type: ignore[arg-type]
    "own operator": lambda model, x: Twice.apply(plain(model, x)),  # type: ignore[no-untyped-call]
    "dropout": lambda model, x: F.dropout(plain(model, x).expand(64), 0.5).mean(),
}


def gradients(loss: Callable[[nn.Module, Tensor], Tensor]) -> list[Tensor | None]:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 4))
    loss(model, torch.randn(6, 4)).backward()
    return [*(one.grad for one in model.parameters()), torch.rand(3)]


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_and_random_numbers_are_the_same_while_operations_are_counted(name: str) -> None:
    torch.compiler.reset()
    expected = gradients(LOSSES[name])
    with torch.compiler.set_stance("force_eager"), FlopCounter() as counter:
        found = gradients(LOSSES[name])
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)
    assert (counter.total is None) if name == "jagged" else counter.total


@pytest.mark.parametrize("name", ["plain", "attention", "own operator"])
def test_the_number_is_torchs(name: str) -> None:
    with FlopCounterMode(display=False) as known:
        gradients(LOSSES[name])
    with FlopCounter() as counter:
        gradients(LOSSES[name])
    assert counter.total == known.get_total_flops()


def test_an_operator_that_torchs_formula_cannot_count_leaves_the_number_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def formula(*args: object, **kwargs: object) -> int:
        raise AssertionError("not this shape")

    monkeypatch.setitem(flop_registry, torch.ops.aten.addmm, formula)
    with FlopCounter() as counter:
        gradients(plain)
    assert counter.total is None
