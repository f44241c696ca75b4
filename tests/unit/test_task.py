"""What a signature may say."""

import pytest

from raystack.task import Signature, TensorSpec


def test_a_signature_is_the_same_after_it_was_json() -> None:
    inputs = (TensorSpec("text", "bytes", (-1,)), TensorSpec("x", "bfloat16", (-1, 2)))
    signature = Signature(inputs, (TensorSpec("y", "uint64", (-1, -1)),))
    assert Signature.from_dict(signature.as_dict()) == signature


def test_an_unknown_dtype_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"the dtype of 'x' is one of bool, .*, bytes; got 'float'"):
        TensorSpec("x", "float", (-1,))  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(), (3,), (3, -1)])
def test_a_shape_starts_with_the_batch(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the shape of 'x' starts with -1, the batch"):
        TensorSpec("x", "float32", shape)
