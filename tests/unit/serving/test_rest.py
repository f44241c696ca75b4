"""Bodies of infer requests and responses: every datatype both ways, and one error for each way to be
wrong.
"""

import json
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import serialize_bf16_tensor, serialize_byte_tensor

from raystack.serving.protocol import Contract, InferRequest, OutputRequest, RequestError, rest
from raystack.serving.protocol.tensors import DATATYPES, NUMPY
from raystack.serving.protocol.values import to_array
from raystack.task import Dtype, Signature, TensorSpec

VALUES: dict[str, list[Any]] = {
    "bool": [True, False, True],
    "uint8": [0, 7, 255],
    "uint16": [0, 7, 2**16 - 1],
    "uint32": [0, 7, 2**32 - 1],
    "uint64": [0, 2**63, 2**64 - 1],
    "int8": [-128, 0, 127],
    "int16": [-32768, 0, 32767],
    "int32": [-(2**31), 0, 2**31 - 1],
    "int64": [-(2**63), 0, 2**63 - 1],
    "float16": [0.5, -2.0, 65504.0],
    "bfloat16": [0.5, -2.0, 2.0**127],
    "float32": [0.1, -2.0, 3e38],
    "float64": [0.1, -2.0, 1e300],
    "bytes": ["", "grün", "two\nlines"],
}


def body(**changes: Any) -> bytes:
    x = {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1.0, 2.0, 3.0, 4.0]}
    n = {"name": "n", "datatype": "INT64", "shape": [2, 3], "data": [[1, 2, 3], [4, 5, 6]]}
    return json.dumps({"inputs": [x, n], **changes}).encode()


def tensor(name: str = "x", **changes: Any) -> dict[str, Any]:
    given = {
        "x": {"datatype": "FP32", "shape": [2, 2], "data": [1.0, 2.0, 3.0, 4.0]},
        "n": {"datatype": "INT64", "shape": [2, 1], "data": [1, 2]},
    }
    return {"name": name, **given.get(name, given["x"]), **changes}


def one(dtype: Dtype) -> Contract:
    spec = TensorSpec("v", dtype, (-1, 3))
    return Contract("one", "1", Signature((spec,), (spec,)))


@pytest.mark.parametrize("dtype", list(DATATYPES))
def test_json_round_trip(dtype: Dtype) -> None:
    contract = one(dtype)
    config = {
        "id": "a7",
        "inputs": [{"name": "v", "datatype": DATATYPES[dtype], "shape": [1, 3], "data": VALUES[dtype]}],
    }
    request = rest.parse(json.dumps(config).encode(), None, contract)
    array = request.inputs["v"]
    assert (array.dtype, array.shape, request.batch, request.id) == (NUMPY[dtype], (1, 3), 1, "a7")
    answer, length = rest.render(request, {"v": array}, contract)
    decoded = json.loads(answer)
    assert length is None
    assert (decoded["model_name"], decoded["model_version"], decoded["id"]) == ("one", "1", "a7")
    output = decoded["outputs"][0]
    assert (output["name"], output["datatype"], output["shape"]) == ("v", DATATYPES[dtype], [1, 3])
    if dtype == "float32":
        assert output["data"] == np.array(VALUES[dtype], dtype).tolist()
    else:
        assert output["data"] == VALUES[dtype]


def as_triton(dtype: Dtype) -> bytes:
    """The values as Triton's client writes them."""
    if dtype == "bfloat16":
        return bytes(serialize_bf16_tensor(np.array([VALUES[dtype]], np.float32)).item())
    if dtype == "bytes":
        return bytes(serialize_byte_tensor(np.array([VALUES[dtype]], object)).item())
    return np.array([VALUES[dtype]], dtype).tobytes()


@pytest.mark.parametrize("dtype", list(DATATYPES))
def test_binary_round_trip(dtype: Dtype) -> None:
    contract, raw = one(dtype), as_triton(dtype)
    described = {
        "name": "v",
        "datatype": DATATYPES[dtype],
        "shape": [1, 3],
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [described], "parameters": {"binary_data_output": True}}).encode()
    request = rest.parse(head + raw, str(len(head)), contract)
    array = request.inputs["v"]
    assert array.shape == (1, 3)
    np.testing.assert_array_equal(array, to_array([VALUES[dtype]], dtype))
    answer, length = rest.render(request, {"v": array}, contract)
    assert length is not None
    assert json.loads(answer[:length])["outputs"][0]["parameters"] == {"binary_data_size": len(raw)}
    assert answer[length:] == raw


@pytest.mark.parametrize("dtype", [dtype for dtype in DATATYPES if dtype != "bytes"])
def test_a_body_without_json_is_one_sample_and_is_answered_alike(dtype: Dtype) -> None:
    spec = TensorSpec("v", dtype, (-1, -1, 1))
    contract, raw = Contract("one", "1", Signature((spec,), (spec,))), as_triton(dtype)
    request = rest.parse(raw, "0", contract)
    assert (request.inputs["v"].shape, request.batch) == ((1, 3, 1), 1)
    answer, length = rest.render(request, dict(request.inputs), contract)
    assert answer[length:] == raw


def test_a_body_without_json_is_one_string() -> None:
    spec = TensorSpec("v", "bytes", (-1,))
    contract = Contract("one", "1", Signature((spec,), (spec,)))
    request = rest.parse(b"gr\xfc", "0", contract)
    assert request.inputs["v"].tolist() == [b"gr\xfc"]
    answer, length = rest.render(request, dict(request.inputs), contract)
    assert answer[length:] == b"\x03\x00\x00\x00gr\xfc"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"12345", "input 'v': there are 5 bytes, and FP32 of shape [1, 1, 2] needs 8"),
        (b"", "input 'v': there are 0 bytes, and FP32 of shape [1, 1, 2] needs 8"),
        (b"1" * 20, "input 'v': there are 20 bytes, and FP32 of shape [1, 2, 2] needs 16"),
    ],
)
def test_a_body_without_json_has_the_size_of_its_input(raw: bytes, message: str) -> None:
    spec = TensorSpec("v", "float32", (-1, -1, 2))
    with pytest.raises(RequestError) as raised:
        rest.parse(raw, "0", Contract("one", "1", Signature((spec,), (spec,))))
    assert str(raised.value) == message


def test_several_inputs_nested_or_flat(contract: Contract) -> None:
    request = rest.parse(body(), None, contract)
    assert request.inputs["x"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert request.inputs["n"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert request.batch == 2
    assert request.outputs == (OutputRequest("y", False), OutputRequest("label", False))


def test_asked_outputs_come_alone_and_as_asked(contract: Contract) -> None:
    config = [{"name": "label", "parameters": {"binary_data": True}}, {"name": "y"}]
    request = rest.parse(body(outputs=config), None, contract)
    assert request.outputs == (OutputRequest("label", True), OutputRequest("y", False))
    arrays = {"y": np.array([[1], [2]], np.float32), "label": np.array([1, 0])}
    answer, length = rest.render(request, arrays, contract)
    assert length is not None
    assert [output["name"] for output in json.loads(answer[:length])["outputs"]] == ["label", "y"]
    assert np.frombuffer(answer[length:], "<i8").tolist() == [1, 0]


def test_numbers_json_has_no_word_for_are_written_as_python_does(contract: Contract) -> None:
    request = rest.parse(body(outputs=[{"name": "y"}]), None, contract)
    answer, _ = rest.render(request, {"y": np.array([[np.nan], [np.inf]], np.float32)}, contract)
    assert str(json.loads(answer)["outputs"][0]["data"]) == "[nan, inf]"


def numbers(dtype: Dtype, text: str) -> list[Any]:
    """The values of an input of one value, which is written as `text`."""
    spec = TensorSpec("v", dtype, (-1,))
    contract = Contract("one", "1", Signature((spec,), (spec,)))
    head = (
        f'{{"inputs": [{{"name": "v", "datatype": "{DATATYPES[dtype]}", "shape": [1], "data": [{text}]}}]}}'
    )
    return list(rest.parse(head.encode(), None, contract).inputs["v"].tolist())


@pytest.mark.parametrize(
    ("dtype", "text", "value"),
    [
        ("float32", "3", 3.0),
        ("float32", "100000000000000000000", float(np.float32(1e20))),
        ("float64", "18446744073709551615", 2.0**64),
        ("float64", "-" + "1" * 300, -float("1" * 300)),
        ("float64", "1e-400", 0.0),
        ("float32", "1e-60", 0.0),
        ("float16", "65504", 65504.0),
        ("float16", "65519.9", 65504.0),
        ("bfloat16", "3.1", 3.09375),
        ("int8", "5.0", 5),
        ("int8", "-1.28e2", -128),
        ("uint64", "1e15", 10**15),
        ("int64", "9007199254740991.0", 2**53 - 1),
        ("uint64", "18446744073709551615", 2**64 - 1),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_number_that_fits_is_taken(dtype: Dtype, text: str, value: float) -> None:
    assert numbers(dtype, text) == [value]


def test_numbers_of_both_kinds_may_stand_together(contract: Contract) -> None:
    request = rest.parse(body(inputs=[tensor(data=[[1, 10**20], [2.5, -3]]), tensor("n")]), None, contract)
    np.testing.assert_array_equal(request.inputs["x"], np.array([[1, 1e20], [2.5, -3]], np.float32))


@pytest.mark.parametrize(
    ("dtype", "text", "reason"),
    [
        *((dtype, "true", "values that are not") for dtype in DATATYPES if dtype != "bool"),
        *((dtype, "null", "values that are not") for dtype in DATATYPES),
        *((dtype, "{}", "values that are not") for dtype in DATATYPES),
        *((dtype, '"1"', "values that are not") for dtype in DATATYPES if dtype != "bytes"),
        *(
            (dtype, text, "should be JSON")
            for dtype in DATATYPES
            for text in ("1e999", "-1e999", "NaN", "01")
        ),
        ("bool", "1", "values that are not BOOL"),
        ("bytes", "1", "values that are not BYTES"),
        ("int64", "1.5", "values that are not INT64"),
        ("int8", "128", "beyond INT8, -128 to 127"),
        ("int8", "1e300", "beyond INT8, -128 to 127"),
        ("uint8", "-1", "beyond UINT8, 0 to 255"),
        ("uint16", "65536", "beyond UINT16, 0 to 65535"),
        ("int64", "9223372036854775808", "beyond INT64"),
        ("int64", "100000000000000000000", "beyond INT64"),
        ("uint64", "18446744073709551616", "beyond UINT64"),
        ("int64", "9007199254740993.0", "whole numbers from 2**53 on with a point or an exponent"),
        ("float16", "65520", "beyond FP16"),
        ("bfloat16", "3.4e38", "beyond BF16"),
        ("float32", "1e39", "beyond FP32"),
        ("float32", "1" * 40, "beyond FP32"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_value_that_does_not_fit_is_not_converted(dtype: Dtype, text: str, reason: str) -> None:
    with pytest.raises(RequestError) as raised:
        numbers(dtype, text)
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


def test_bytes_that_are_no_text_have_no_json_and_are_sent_as_they_are() -> None:
    contract = one("bytes")
    array = to_array([[b"\xff", b"", b"a"]], "bytes")
    with pytest.raises(RequestError, match="output 'v': is not UTF-8; ask for it with binary_data"):
        rest.render(InferRequest(None, {}, 1, contract.everything[False]), {"v": array}, contract)
    answer, length = rest.render(InferRequest(None, {}, 1, contract.everything[True]), {"v": array}, contract)
    assert answer[length:] == serialize_byte_tensor(array).item()


@pytest.mark.parametrize("dtype", [dtype for dtype in DATATYPES if dtype not in ("bool", "bytes")])
def test_many_values_are_written_as_few(dtype: Dtype) -> None:
    contract, array = one(dtype), to_array([[0, 1, 3]] * 1_000, dtype) / to_array([[7]], dtype)
    array = array.astype(NUMPY[dtype])
    answer, _ = rest.render(InferRequest(None, {}, 1, contract.everything[False]), {"v": array}, contract)
    assert json.loads(answer)["outputs"][0]["data"] == array.astype(array.dtype.name).ravel().tolist()


def test_parameters_of_stateful_models_and_queues_change_nothing(contract: Contract) -> None:
    sent = {"sequence_id": 7, "sequence_start": True, "sequence_end": False, "priority": 2, "timeout": 5_000}
    request = rest.parse(body(parameters={**sent, "mine": {"a": [1]}}), None, contract)
    assert request.parameters == {**sent, "mine": {"a": [1]}}
    assert rest.parse(body(parameters={"sequence_id": "a"}), None, contract).batch == 2
    assert rest.parse(body(parameters=None, outputs=None, id=None), None, contract).parameters == {}
    assert rest.parse(body(outputs=[]), None, contract).outputs == contract.everything[False]


def test_a_class_count_of_nothing_is_none(contract: Contract) -> None:
    asked = [{"name": "y", "parameters": {"classification": 0}}]
    assert rest.parse(body(outputs=asked), None, contract).outputs == (OutputRequest("y", False),)


WRONG: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"{", "body: should be JSON"),
    "not an object": (b"[]", "body: should be a JSON object (got [])"),
    "no inputs": (b"{}", "body: needs 'inputs', a list (got nothing)"),
    "inputs no list": (body(inputs={}), "body: needs 'inputs', a list (got {})"),
    "id": (body(id=7), "id: should be a string (got 7)"),
    "input no object": (body(inputs=[3]), "inputs[0]: should be a JSON object (got 3)"),
    "no name": (body(inputs=[{}]), "inputs[0].name: should be a string (got None)"),
    "a name of many lines": (
        body(inputs=[tensor("x\n" * 1_000)]),
        "input 'x\\nx\\nx\\n",
    ),
    "unknown input": (body(inputs=[tensor("xx")]), "input 'xx': the signature has 'x', 'n'"),
    "input twice": (body(inputs=[tensor(), tensor()]), "input 'x': is there twice"),
    "missing input": (body(inputs=[tensor()]), "inputs: the signature also has 'n' (got x)"),
    "datatype": (
        body(inputs=[tensor(datatype="FP64")]),
        "input 'x': the signature says datatype FP32 (got FP64)",
    ),
    "no datatype": (
        body(inputs=[tensor(datatype=None)]),
        "input 'x': the signature says datatype FP32 (got None)",
    ),
    "rank": (
        body(inputs=[tensor(shape=[4])]),
        "input 'x': the signature says shape [-1, 2], -1 for any size from 1 (got shape [4])",
    ),
    "fixed size": (body(inputs=[tensor(shape=[1, 4])]), "input 'x': the signature says shape [-1, 2]"),
    "shape no list": (body(inputs=[tensor(shape=4)]), "input 'x': needs 'shape', a list (got 4)"),
    "shape no numbers": (
        body(inputs=[tensor(shape=[True, 2.0])]),
        "input 'x', shape: should be a list of whole numbers",
    ),
    "shape of many numbers": (
        body(inputs=[tensor(shape=[1] * 1_000)]),
        "input 'x': the signature says shape [-1, 2], -1 for any size from 1 (got shape [1, 1, 1,",
    ),
    "shape of truth": (
        body(inputs=[tensor(shape=[True, 2])]),
        "input 'x', shape: should be a list of whole numbers (got [True, 2])",
    ),
    "free size": (body(inputs=[tensor(shape=[-1, 2])]), "input 'x': the signature says shape [-1, 2]"),
    "shape beyond all memory": (
        body(inputs=[tensor("n", shape=[2**62, 2**62])]),
        "input 'n': data has 2 values, and shape [4611686018427387904, 4611686018427387904] needs 2126",
    ),
    "negative size": (body(inputs=[tensor(shape=[-2, 2])]), "input 'x': the signature says shape [-1, 2]"),
    "empty batch": (
        body(inputs=[tensor(shape=[0, 2], data=[])]),
        "input 'x': a batch has at least one sample (got shape [0, 2])",
    ),
    "too few values": (
        body(inputs=[tensor(data=[1, 2, 3])]),
        "input 'x': data has 3 values, and shape [2, 2] needs 4",
    ),
    "other nesting": (
        body(inputs=[tensor(data=[[1, 2, 3, 4]])]),
        "input 'x': data is nested as [1, 4], and shape says [2, 2]",
    ),
    "ragged": (
        body(inputs=[tensor(data=[[1, 2], [3]])]),
        "input 'x': data should be flat, or nested exactly as the shape",
    ),
    "no data": (body(inputs=[tensor(data=None)]), "input 'x': data should be a list"),
    "text as numbers": (
        body(inputs=[tensor(data=["1", "2", "3", "4"])]),
        "input 'x': data holds values that are not FP32",
    ),
    "null": (body(inputs=[tensor(data=[1, 2, 3, None])]), "input 'x': data holds values that are not FP32"),
    "fraction as integer": (
        body(inputs=[tensor("n", data=[1.5, 2])]),
        "input 'n': data holds values that are not INT64",
    ),
    "beyond the datatype": (
        body(inputs=[tensor(data=[1, 2, 3, 1e39])]),
        "input 'x': data holds values beyond FP32",
    ),
    "batches differ": (
        body(inputs=[tensor(), tensor("n", shape=[1, 2])]),
        "inputs: all have the same number of samples, the first size of the shape (got 'x' 2, 'n' 1)",
    ),
    "unknown output": (
        body(outputs=[{"name": "labels"}]),
        "output 'labels': the signature has 'y', 'label'; did you mean 'label'?",
    ),
    "outputs no list": (body(outputs={}), "body: needs 'outputs', a list (got {})"),
    "outputs a name": (body(outputs="y"), "body: needs 'outputs', a list (got 'y')"),
    "output twice": (body(outputs=[{"name": "y"}, {"name": "y"}]), "output 'y': is there twice"),
    "output flag": (
        body(outputs=[{"name": "y", "parameters": {"binary_data": 1}}]),
        "outputs[0], parameters.binary_data: should be true or false (got 1)",
    ),
    "output in shared memory": (
        body(outputs=[{"name": "y", "parameters": {"shared_memory_region": "r"}}]),
        "outputs[0], parameters.shared_memory_region: is not supported",
    ),
    "timeout": (
        body(parameters={"timeout": -1}),
        "body, parameters.timeout: should be a whole number of microseconds (got -1)",
    ),
    "priority": (
        body(parameters={"priority": "high"}),
        "body, parameters.priority: should be a whole number",
    ),
    "sequence": (
        body(parameters={"sequence_id": 1.5}),
        "body, parameters.sequence_id: should be a whole number or a string (got 1.5)",
    ),
    "sequence start": (
        body(parameters={"sequence_start": 1}),
        "body, parameters.sequence_start: should be true or false (got 1)",
    ),
    "deep": (b"[" * 1_000 + b"]" * 1_000, "body: should be a JSON object (got [[[[...]]]])"),
    "too deep": (b"[" * 100_000, "body: should be JSON"),
    "no UTF-8": (b'{"id": "\xff"}', "body: should be JSON"),
    "NaN": (
        body(inputs=[tensor(data=[1, 2, 3, float("nan")])]),
        "body: should be JSON: unexpected character",
    ),
    "output no object": (body(outputs=["y"]), "outputs[0]: should be a JSON object (got 'y')"),
    "output no name": (body(outputs=[{}]), "outputs[0].name: should be a string (got None)"),
    "parameters": (body(parameters=[]), "body, parameters: should be a JSON object (got [])"),
    "flag": (
        body(parameters={"binary_data_output": 1}),
        "body, parameters.binary_data_output: should be true or false (got 1)",
    ),
    "classification": (
        body(outputs=[{"name": "y", "parameters": {"classification": 2}}]),
        "outputs[0], parameters.classification: is not supported",
    ),
    "shared memory": (
        body(inputs=[tensor(parameters={"shared_memory_region": "r"})]),
        "input 'x', parameters.shared_memory_region: is not",
    ),
    "data twice": (
        body(inputs=[tensor(parameters={"binary_data_size": 16})]),
        "input 'x': has either data or parameters.binary_data_size",
    ),
    "binary size": (
        body(
            inputs=[
                {"name": "x", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": "16"}}
            ]
        ),
        "input 'x', parameters.binary_data_size: should be a whole number of bytes (got '16')",
    ),
    "bytes missing": (
        body(
            inputs=[
                {"name": "x", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}}
            ]
        ),
        "input 'x': there are 0 bytes, and FP32 of shape [2, 2] needs 16",
    ),
}


@pytest.mark.parametrize(("sent", "message"), list(WRONG.values()), ids=list(WRONG))
def test_a_wrong_request_is_told_what_is_wrong(contract: Contract, sent: bytes, message: str) -> None:
    with pytest.raises(RequestError) as raised:
        rest.parse(sent, None, contract)
    assert str(raised.value).startswith(message)
    assert raised.value.status == 400


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_json_has_no_word_for_are_sent_as_binary(contract: Contract, number: float) -> None:
    with pytest.raises(RequestError, match="it has no NaN and no infinities, which binary data has"):
        rest.parse(body(inputs=[tensor(data=[1, 2, 3, number])]), None, contract)
    raw = np.array([1, 2, 3, number], "<f4").tobytes()
    x = {"name": "x", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}}
    head = body(inputs=[x, tensor("n")])
    np.testing.assert_array_equal(rest.parse(head + raw, str(len(head)), contract).inputs["x"][1, 1], number)


@pytest.mark.parametrize(
    ("sent", "length", "message"),
    [
        (
            body() + b"1234",
            len(body()),
            "body: the binary_data_size of all inputs together is 0 (got 4 bytes after the JSON)",
        ),
        (body(), "9" * 5_000, "Inference-Header-Content-Length: should be a whole number up to the body's"),
        (body(), "-1", "Inference-Header-Content-Length: should be a whole number up to the body's length"),
        (body(), "٣", "Inference-Header-Content-Length: should be a whole number up to the body's length"),
        (body(), 0, "Inference-Header-Content-Length: 0 is for a model with one input"),
        (body(), "ten", "Inference-Header-Content-Length: should be a whole number up to the body's length"),
        (
            body(),
            len(body()) + 1,
            "Inference-Header-Content-Length: should be a whole number up to the body's length",
        ),
        (body(), 10, "body: should be JSON"),
    ],
)
def test_a_wrong_binary_body_is_told_what_is_wrong(
    contract: Contract, sent: bytes, length: object, message: str
) -> None:
    with pytest.raises(RequestError) as raised:
        rest.parse(sent, str(length), contract)
    assert str(raised.value).startswith(message)


def test_metadata_is_the_signature(contract: Contract) -> None:
    assert contract.metadata() == {
        "name": "demo",
        "versions": ["3"],
        "platform": "raystack_pytorch",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "n", "datatype": "INT64", "shape": [-1, -1]},
        ],
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [-1, 1]},
            {"name": "label", "datatype": "INT64", "shape": [-1]},
        ],
    }
