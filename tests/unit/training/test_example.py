"""Which part of a batch is what `predict` takes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from raystack.checkpoint.example import read_example, write_example
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


def test_texts_and_bfloat16_are_inputs_too(tmp_path: Path) -> None:
    text, half = TensorSpec("text", "bytes", (-1,)), TensorSpec("half", "bfloat16", (-1, 4))
    found = inputs_of({"text": ["grün"], "half": x.bfloat16()}, Signature((text, half), ()))
    assert found is not None
    write_example(tmp_path, found)
    kept = read_example(tmp_path)
    assert kept is not None
    assert {name: array.tolist() for name, array in kept.items()} == {"text": ["grün"], "half": x.tolist()}
    assert kept["half"].dtype.name == "bfloat16"
    assert inputs_of({"text": [3], "half": x.bfloat16()}, Signature((text, half), ())) is None
    assert inputs_of({"text": ["a", "b"], "half": x.bfloat16()}, Signature((text, half), ())) is None


@pytest.mark.parametrize(
    "batch",
    [{"y": x}, [x.double()], [x[:, :3]], [torch.cat([x, x])], [x[0]], ["text"], [], 3],
    ids=["no such name", "dtype", "shape", "two samples", "no batch", "no tensor", "nothing", "a number"],
)
def test_what_the_signature_does_not_say_is_no_example(batch: Any) -> None:
    assert inputs_of(batch, Signature((X,), ())) is None


def test_a_nested_tensor_is_no_example() -> None:
    ragged = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
    assert inputs_of(ragged, Signature((TensorSpec("x", "float32", (-1, -1)),), ()), 2) is None
