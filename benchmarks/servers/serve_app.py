"""The same endpoint on Ray Serve: `serve run serve_app:app`."""

from typing import Any

import network
import torch
from pydantic import BaseModel
from ray import serve
from starlette.requests import Request


class InferInput(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class InferRequest(BaseModel):
    inputs: list[InferInput]


@serve.deployment(max_ongoing_requests=100)
class Model:
    def __init__(self) -> None:
        self.model = network.read()

    async def __call__(self, request: Request) -> dict[str, Any]:
        if request.method == "GET":
            return {"ready": True}
        given = InferRequest.model_validate_json(await request.body()).inputs[0]
        with torch.inference_mode():
            y = self.model(torch.tensor(given.data, dtype=torch.float32).reshape(given.shape))
        output = {"name": "y", "datatype": "FP32", "shape": list(y.shape), "data": y.flatten().tolist()}
        return {"model_name": "model", "model_version": "1", "outputs": [output]}


app = Model.bind()
