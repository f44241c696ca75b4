"""What is made of an error of a worker: too little memory is told as that, however a library words it."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from raystack.errors import ExhaustedError
from raystack.training.failure import explained

TOO_MUCH = 1 << 50


def _wrapped() -> None:
    try:
        raise MemoryError("no more")
    except MemoryError as error:
        raise ValueError("this batch cannot be read") from error


def _of_the_system() -> None:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


@pytest.mark.parametrize(
    "allocate",
    [lambda: torch.empty(TOO_MUCH), lambda: np.ones(TOO_MUCH), _wrapped, _of_the_system],
    ids=["torch", "numpy", "wrapped", "system"],
)
def test_too_little_memory_is_told_as_that(allocate: Callable[[], object]) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - the class is the library's
        allocate()
    told = explained(
        raised.value, "step 3, rank 1", str(Path(__file__).parent), "no checkpoint was written yet"
    )
    assert isinstance(told, ExhaustedError)
    (problem,) = told.problems
    assert problem.where == "step 3, rank 1"
    assert "training.batch.micro" in str(problem.remedy)
    assert "test_failure.py" in str(problem.remedy)


def test_of_cudas_long_message_what_failed_and_what_was_free_is_told() -> None:
    text = (
        "CUDA out of memory. Tried to allocate 4.00 GiB. GPU 0 has a total capacity of 139.80 GiB of which"
        " 2.04 GiB is free. Including non-PyTorch memory, this process has 137.75 GiB memory in use. Of the"
        " allocated memory 137.02 GiB is allocated by PyTorch.  See documentation (https://x.org)"
    )
    with pytest.raises(torch.OutOfMemoryError) as raised:
        raise torch.OutOfMemoryError(text)
    (problem,) = explained(raised.value, "step 1, rank 0", None, "no checkpoint was written yet").problems
    assert problem.rule == f"OutOfMemoryError: {text.partition('. Including')[0]}"


def test_an_error_of_the_task_is_no_lack_of_memory() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.zeros(2) @ torch.zeros(3)
    assert not isinstance(explained(raised.value, "step 3", None, ""), ExhaustedError)


def test_an_error_of_a_thousand_lines_and_one_of_a_long_line_fit_on_a_screen() -> None:
    with pytest.raises(ValueError, match="bad") as raised:
        raise ValueError("a bad sample\n" * 1000 + "9" * 100_000)
    told = str(explained(raised.value, "step 3", None, "no checkpoint was written yet"))
    assert len(told.splitlines()) < 20
    assert "1001 lines" in told
    with pytest.raises(ValueError, match="9") as raised:
        raise ValueError("9" * 100_000)
    told = str(explained(raised.value, "step 3", None, "no checkpoint was written yet"))
    assert len(told) < 1000
    assert "(100,012 characters)" in told
