"""The protocol's first version: rows and columns, answered alike."""

import json
from typing import Any

import numpy as np
import pytest

from raystack.serving.protocol import Contract, RequestError, v1
from raystack.task import Dtype, Signature, TensorSpec

OUTPUTS = {"y": np.array([[0.5], [1.5]], np.float32), "label": np.array([1, 0])}
N, LABEL = [[1, 2, 3], [4, 5, 6]], [1, 0]
X = [[1.0, 2.0], [3.0, 4.0]]


def body(**values: Any) -> bytes:
    return json.dumps(values).encode()


def one(dtype: Dtype) -> Contract:
    spec = TensorSpec("v", dtype, (-1, 2))
    return Contract("one", "1", Signature((spec,), (spec,)))


def test_rows_are_answered_in_rows(contract: Contract) -> None:
    rows = [{"x": x, "n": n} for x, n in zip(X, N, strict=True)]
    request = v1.parse(body(instances=rows, signature_name="serving_default"), None, contract)
    assert {name: array.tolist() for name, array in request.inputs.items()} == {"x": X, "n": N}
    assert request.batch == 2
    answer, _ = v1.render(request, OUTPUTS, contract)
    assert json.loads(answer) == {"predictions": [{"y": [0.5], "label": 1}, {"y": [1.5], "label": 0}]}


def test_columns_are_answered_in_columns(contract: Contract) -> None:
    request = v1.parse(body(inputs={"x": X, "n": N}), None, contract)
    assert {name: array.tolist() for name, array in request.inputs.items()} == {"x": X, "n": N}
    answer, _ = v1.render(request, OUTPUTS, contract)
    assert json.loads(answer) == {"outputs": {"y": [[0.5], [1.5]], "label": LABEL}}


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ({"instances": X}, {"predictions": X}),
        ({"instances": [{"v": row} for row in X]}, {"predictions": X}),
        ({"inputs": X}, {"outputs": X}),
        ({"inputs": {"v": X}}, {"outputs": X}),
    ],
)
def test_one_input_and_one_output_need_no_name(sent: dict[str, Any], answered: dict[str, Any]) -> None:
    contract = one("bfloat16")
    request = v1.parse(body(**sent), None, contract)
    answer, _ = v1.render(request, dict(request.inputs), contract)
    assert json.loads(answer) == answered


def test_bytes_are_text_or_base64() -> None:
    contract = one("bytes")
    request = v1.parse(body(instances=[["a", {"b64": "/w=="}]]), None, contract)
    assert request.inputs["v"].tolist() == [[b"a", b"\xff"]]
    answer, _ = v1.render(request, dict(request.inputs), contract)
    assert json.loads(answer) == {"predictions": [["a", {"b64": "/w=="}]]}


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"{", "body: should be JSON"),
        (body(), "body: needs either 'instances' or 'inputs' (got neither)"),
        (body(instances=[], inputs=[]), "body: needs either 'instances' or 'inputs' (got both)"),
        (body(instances=[]), "instances: should be a list with at least one sample (got [])"),
        (body(instances={}), "instances: should be a list with at least one sample (got {})"),
        (body(instances=[1]), "instances[0]: should be an object with the inputs 'x', 'n' (got 1)"),
        (body(instances=[{"z": 1}]), "input 'z': the signature has 'x', 'n'"),
        (body(instances=[{"x": X[0]}]), "inputs: the signature also has 'n' (got x)"),
        (
            body(instances=[{"x": X[0], "n": N[0]}, {"x": X[1]}]),
            "instances[1]: has the same inputs as the first, x, n (got x)",
        ),
        (body(inputs=3), "inputs: should be an object with the inputs 'x', 'n' (got 3)"),
        (body(inputs={"x": 3, "n": N}), "input 'x': data should be a list"),
        (body(inputs={"x": [X, X], "n": N}), "input 'x': the signature says shape [-1, 2]"),
        (body(inputs={"x": [[1, 2], [3]], "n": N}), "input 'x': data should be flat, or nested exactly"),
        (body(inputs={"x": [[1, True]], "n": N}), "input 'x': data holds values that are not FP32"),
        (body(inputs={"x": [["a", "b"]], "n": N}), "input 'x': data holds values that are not FP32"),
        (body(inputs={"x": X, "n": N[:1]}), "inputs: all have the same number of samples"),
    ],
)
def test_what_is_wrong_is_told(contract: Contract, sent: bytes, message: str) -> None:
    with pytest.raises(RequestError) as raised:
        v1.parse(sent, None, contract)
    assert str(raised.value).startswith(message)
    assert raised.value.status == 400


@pytest.mark.parametrize(
    "data", [[["a", {"b64": "?"}]], [["a", {"b64": 1}]], [["a", 1]], [["a", [["b"]]]], [["a", None]]]
)
def test_what_is_no_text_is_refused(data: list[Any]) -> None:
    with pytest.raises(RequestError, match="input 'v': data holds"):
        v1.parse(body(instances=data), None, one("bytes"))
