"""Good requests to one model, each spoiled somewhere: bodies over HTTP, and what the model is."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from raystack.serving.protocol import Contract
from raystack.serving.protocol.tensors import DATATYPES, to_bytes
from raystack.serving.protocol.values import to_array
from raystack.task import Dtype, Signature, TensorSpec

DTYPES: tuple[Dtype, ...] = ("float32", "int8", "uint64", "bool", "bytes", "bfloat16")
CONTRACT = Contract(
    "demo",
    "3",
    Signature(
        tuple(TensorSpec(dtype, dtype, (-1, 2)) for dtype in DTYPES), (TensorSpec("y", "float32", (-1, 1)),)
    ),
)
VALUES: dict[Dtype, list[list[Any]]] = {
    **{dtype: [[1, 2], [3, 4], [5, 6]] for dtype in DTYPES},
    "bool": [[True, False]] * 3,
    "bytes": [["a", "grün"]] * 3,
}
DEEP = "deep"
"""Stands for a value that is nested deeper than Python's own JSON is written."""
NASTY: list[Any] = [
    None,
    True,
    0,
    -1,
    2,
    2.5,
    3.0,
    2**63,
    2**64,
    -(2**64),
    10**30,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "a",
    "1",
    "\ud800",
    "\n" * 3,
    "x" * 10_000,
    [],
    [[]],
    {},
    {"a": {}},
    [1, [2]],
    [True, 1],
    DEEP,
    "float32",
    "FP32",
    "BYTES",
    "binary_data_size",
    list(range(1_000)),
    [10**9, 10**9],
    [2**62, 4],
    {"binary_data_size": 8},
    {"binary_data_size": -8},
    {"binary_data_size": 2**70},
    {"shared_memory_region": "r"},
    {"classification": 1},
]
HEADERS = [None, "", "0", "1", "-1", "1" * 5_000, "٣", "1e3", "0x10", " 7 ", "99999999"]


def document(chance: random.Random, **parameters: Any) -> tuple[dict[str, Any], bytes]:
    """A good request, some of its tensors as raw bytes."""
    inputs, blobs = [], []
    for dtype in DTYPES:
        tensor: dict[str, Any] = {"name": dtype, "datatype": DATATYPES[dtype], "shape": [3, 2]}
        if chance.random() < 0.5:
            tensor["data"] = VALUES[dtype]
        else:
            blobs.append(to_bytes(to_array(VALUES[dtype], dtype)))
            tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
        inputs.append(tensor)
    request: dict[str, Any] = {"id": "7", "inputs": inputs, "parameters": {"priority": 1, **parameters}}
    if chance.random() < 0.5:
        request["outputs"] = [{"name": "y", "parameters": {"binary_data": True}}]
    return request, b"".join(blobs)


def nasty(chance: random.Random) -> Any:
    """A value of a copy of its own."""
    return copy.deepcopy(chance.choice(NASTY))


def written(request: dict[str, Any]) -> bytes:
    """The JSON of a document."""
    return json.dumps(request).encode().replace(b'"deep"', b"[" * 1_000 + b"7" + b"]" * 1_000)


def spoil(chance: random.Random, node: Any) -> None:
    """Change one place of a document."""
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(node[key], (dict, list)) and chance.random() < 0.7:
            node = node[key]
            continue
        match chance.randrange(4):
            case 0:
                del node[key]
            case 1 if isinstance(node, list):
                node.append(node[key])
            case 2 if isinstance(node, dict):
                node[chance.choice(["name", "data", "shape", "parameters", "x"])] = nasty(chance)
            case _:
                node[key] = nasty(chance)
        return


def mutants(seed: int, count: int, **parameters: Any) -> Iterator[tuple[bytes, str | None]]:
    """Bodies and their headers."""
    chance = random.Random(seed)
    for _ in range(count):
        request, blob = document(chance, **parameters)
        request = json.loads(json.dumps(request))
        for _ in range(chance.choice([0, 1, 1, 2])):
            spoil(chance, request)
        head = written(request)
        body = bytearray(head + blob)
        header: str | None = str(len(head))
        match chance.randrange(20):
            case 0:
                del body[chance.randrange(len(body)) :]
            case 1:
                body[chance.randrange(len(body))] = chance.randrange(256)
            case 2:
                at = chance.randrange(len(body))
                body[at:at] = chance.randbytes(chance.randrange(1, 9))
            case 3:
                header = chance.choice(HEADERS)
            case 4:
                header = str(chance.randrange(2 * len(body)))
        yield bytes(body), header


def mutants_of_v1(seed: int, count: int) -> Iterator[bytes]:
    """Bodies of the protocol's first version."""
    chance = random.Random(seed)
    for _ in range(count):
        columns = {"inputs": VALUES}
        rows = {"instances": [{name: VALUES[name][row] for name in DTYPES} for row in range(3)]}
        request = json.loads(json.dumps(chance.choice([columns, rows])))
        for _ in range(chance.randrange(3)):
            spoil(chance, request)
        yield written(request)
