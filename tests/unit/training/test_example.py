"""Which part of a batch is what `predict` takes."""

from typing import Any

import pytest
import torch

from raystack.task import Signature, TensorSpec
from raystack.training.example import inputs_of

X, N = TensorSpec("x", "float32", (-1, 4)), TensorSpec("n", "int64", (-1, -1))
x, n = torch.arange(4.0).reshape(1, 4), torch.arange(3).reshape(1, 3)


@pytest.mark.parametrize(
    "batch", [{"x": x, "n": n, "y": 1}, [x, n, torch.tensor([7])], (x, n)], ids=["mapping", "list", "tuple"]
)
def test_named_values_or_the_first_ones_are_the_inputs(batch: Any) -> None:
    found = inputs_of(batch, Signature((X, N), ()))
    assert found is not None
    assert {name: array.tolist() for name, array in found.items()} == {"x": x.tolist(), "n": n.tolist()}


def test_a_batch_may_be_the_input_itself() -> None:
    found = inputs_of(x, Signature((X,), ()))
    assert found is not None
    assert found["x"].tolist() == x.tolist()


@pytest.mark.parametrize(
    "batch",
    [{"y": x}, [x.double()], [x[:, :3]], [torch.cat([x, x])], [x[0]], ["text"], [], 3],
    ids=["no such name", "dtype", "shape", "two samples", "no batch", "no tensor", "nothing", "a number"],
)
def test_what_the_signature_does_not_say_is_no_example(batch: Any) -> None:
    assert inputs_of(batch, Signature((X,), ())) is None
