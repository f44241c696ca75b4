"""Ask a server with KServe's client: `python kserve_client.py URL GRPC`, with a Python that has `kserve`.

Prints the answers as one JSON object: lists of numbers, metadata, or what was refused.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

ROWS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def request(
    binary: bool, binary_answer: bool | None = None, name: str = "x", columns: int = 4
) -> InferRequest:
    x = InferInput(name, [5, columns], "FP32")
    x.set_data_from_numpy(ROWS[:, :columns], binary_data=binary)
    chosen = None if binary_answer is None else [RequestedOutput("y", {"binary_data": binary_answer})]
    return InferRequest("mlp", [x], request_id="7", request_outputs=chosen)


async def answer(asked: Awaitable[Any]) -> Any:
    try:
        found = await asked
    except Exception as error:
        code = getattr(error, "code", None)
        return f"refused: {code().name if code else error}"
    if not hasattr(found, "outputs"):
        return found
    return [found.id, found.model_name, found.model_version, found.outputs[0].as_numpy().ravel().tolist()]


async def over_http(url: str) -> dict[str, Any]:
    second = InferenceRESTClient(RESTConfig(protocol="v2"))
    first = InferenceRESTClient(RESTConfig(protocol="v1"))
    return {
        "ready": await answer(second.is_server_ready(url)),
        "live": await answer(second.is_server_live(url)),
        "model ready": await answer(second.is_model_ready(url, "mlp")),
        "JSON": await answer(second.infer(url, request(False), model_name="mlp")),
        "JSON, an output chosen": await answer(second.infer(url, request(False, False), model_name="mlp")),
        "binary": await answer(second.infer(url, request(True, True), model_name="mlp")),
        "binary to JSON": await answer(second.infer(url, request(True, False), model_name="mlp")),
        "JSON to binary": await answer(second.infer(url, request(False, True), model_name="mlp")),
        "v1": await answer(first.infer(url, {"instances": ROWS.tolist()}, model_name="mlp")),
        "v1 ready": await answer(first.is_model_ready(url, "mlp")),
        "no such model": await answer(second.infer(url, request(False), model_name="nope")),
        "no such input": await answer(second.infer(url, request(False, name="z"), model_name="mlp")),
        "too few columns": await answer(second.infer(url, request(True, columns=3), model_name="mlp")),
    }


async def over_grpc(address: str) -> dict[str, Any]:
    async with InferenceGRPCClient(address) as client:
        return {
            "ready": await answer(client.is_server_ready()),
            "live": await answer(client.is_server_live()),
            "model ready": await answer(client.is_model_ready("mlp")),
            "typed": await answer(client.infer(request(False))),
            "raw": await answer(client.infer(request(True))),
            "no such input": await answer(client.infer(request(False, name="z"))),
            "too few columns": await answer(client.infer(request(True, columns=3))),
        }


async def main() -> None:
    http, grpc = await over_http(sys.argv[1]), await over_grpc(sys.argv[2])
    sys.stdout.write(json.dumps({"http": http, "grpc": grpc}))


asyncio.run(main())
