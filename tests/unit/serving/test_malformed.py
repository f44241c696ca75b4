"""Thousands of good requests, each spoiled somewhere: a request that fits the signature, or a refusal."""

import gc
import json
import random
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from raystack.serving.protocol import InferRequest, RequestError, rest, v1
from raystack.serving.protocol.tensors import NUMPY
from tests.unit.serving.spoiled import CONTRACT, DTYPES, VALUES, document, mutants, mutants_of_v1

MUTANTS = 2_000


def check(request: InferRequest) -> None:
    """What is accepted fits the signature."""
    assert list(request.inputs) == list(DTYPES) or set(request.inputs) == set(DTYPES)
    for dtype, array in request.inputs.items():
        assert array.dtype == NUMPY[dtype]  # type: ignore[index]
        assert array.shape == (request.batch, 2)
    for text in request.inputs["bytes"].flat:
        assert type(text) is bytes


def outcome(parse: Callable[[], InferRequest]) -> str:
    """What became of a request: a refusal of one short line, or a request."""
    try:
        request = parse()
    except RequestError as error:
        refused = error
    else:
        check(request)
        return "accepted"
    assert 400 <= refused.status < 500
    assert len(str(refused)) < 1_000
    assert "\n" not in str(refused)
    json.loads(rest.error_body(str(refused)))
    return "refused"


@pytest.mark.filterwarnings("error")
def test_a_spoiled_request_is_refused_or_fits_and_leaves_nothing() -> None:
    outcomes = {"refused": 0, "accepted": 0}
    sizes = []
    tracemalloc.start()
    for seed in range(4):
        for body, header in mutants(seed, MUTANTS // 4, timeout=5):
            outcomes[outcome(lambda: rest.parse(body, header, CONTRACT))] += 1  # noqa: B023
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert outcomes["refused"] > MUTANTS // 3
    assert outcomes["accepted"] > MUTANTS // 5
    assert sizes[-1] - sizes[0] < 100_000
    assert peak < 20_000_000


def test_the_first_version_too() -> None:
    for body in mutants_of_v1(0, MUTANTS // 4):
        outcome(lambda: v1.parse(body, None, CONTRACT))  # noqa: B023


def test_a_good_one_is_accepted() -> None:
    for seed in range(20):
        request, blob = document(random.Random(seed))
        head = json.dumps(request).encode()
        parsed = rest.parse(head + blob, str(len(head)), CONTRACT)
        check(parsed)
        np.testing.assert_array_equal(parsed.inputs["int8"], VALUES["int8"])
