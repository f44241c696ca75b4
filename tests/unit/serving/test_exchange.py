"""Arrays become what `predict` takes, and what it returns becomes arrays, in every dtype."""

from typing import Any

import numpy as np
import pytest
import torch

from raystack.errors import ServingError
from raystack.serving.exchange import answered, given, torch_dtype
from raystack.serving.protocol.tensors import DATATYPES, Array
from raystack.serving.protocol.values import to_array
from raystack.task import Dtype, TensorSpec


def array_of(dtype: Dtype) -> Array:
    plain = {"bool": [[True], [False]], "bytes": [["a"], ["b"]]}
    return to_array(plain.get(dtype, [[0], [1]]), dtype)


@pytest.mark.parametrize("dtype", list(DATATYPES))
@pytest.mark.parametrize("writeable", [True, False])
def test_a_value_comes_back_as_it_went(dtype: Dtype, writeable: bool) -> None:
    spec, array = TensorSpec("v", dtype, (-1, 1)), array_of(dtype)
    array.setflags(write=writeable)
    value = given(array, "cpu")
    if isinstance(value, torch.Tensor):
        assert (value.dtype, value.is_contiguous()) == (torch_dtype(spec), True)
    else:
        assert dtype == "bytes"
    back = answered(value, spec, 2)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_an_array_backwards_is_a_tensor() -> None:
    backwards = np.arange(3.0)[::-1]
    assert isinstance(value := given(backwards, "cpu"), torch.Tensor)
    assert value.tolist() == [2, 1, 0]


@pytest.mark.parametrize("dtype", [np.ulonglong, np.longlong])
def test_a_tensor_of_64_bits_may_have_either_of_its_names_in_c(dtype: type) -> None:
    array = to_array(np.zeros((1, 1), dtype), "uint64" if dtype is np.ulonglong else "int64")
    assert isinstance(given(array, "cpu"), torch.Tensor)


@pytest.mark.parametrize(
    "output",
    [
        ["grün", b"b"],
        ("grün", "b"),
        np.array(["grün", "b"]),
        np.array(["grün", b"b"], object),
        np.array(["grün".encode(), b"b"]),
    ],
)
def test_texts_come_in_any_of_the_usual_forms(output: Any) -> None:
    array = answered(output, TensorSpec("v", "bytes", (-1,)), 2)
    assert array.tolist() == ["grün".encode(), b"b"]


@pytest.mark.parametrize(
    ("output", "dtype", "message"),
    [
        ("ab", "bytes", "the signature says bytes, which are in a NumPy array or a list (got str)"),
        ([1, 2], "bytes", "the signature says bytes or str (got data holds values that are not bytes)"),
        (["a"], "bytes", "the signature says shape [-1] for 2 samples (got shape [1])"),
        (["a", "b"], "float32", "the signature says a tensor (got list)"),
        (torch.zeros(2).bfloat16(), "float32", "the signature says float32 (got bfloat16)"),
        (torch.zeros(2), "uint16", "the signature says uint16 (got float32)"),
        (torch.zeros(2, 1), "float32", "the signature says shape [-1] for 2 samples (got shape [2, 1])"),
    ],
)
def test_what_does_not_fit_the_signature_is_told(output: Any, dtype: Dtype, message: str) -> None:
    with pytest.raises(ServingError) as raised:
        answered(output, TensorSpec("v", dtype, (-1,)), 2)
    assert str(raised.value) == f"task: predict, output 'v': {message}"
