"""An endpoint as one would write it by hand: FastAPI, pydantic, uvicorn. `uvicorn fastapi_app:app`."""

from typing import Any

import network
import torch
from fastapi import FastAPI
from pydantic import BaseModel


class InferInput(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class InferRequest(BaseModel):
    id: str | None = None
    inputs: list[InferInput]


app = FastAPI()
model = network.read()


@app.get("/v2/health/ready")
async def ready() -> dict[str, bool]:
    return {"ready": True}


@app.post("/v2/models/model/infer")
async def infer(request: InferRequest) -> dict[str, Any]:
    given = request.inputs[0]
    with torch.inference_mode():
        y = model(torch.tensor(given.data, dtype=torch.float32).reshape(given.shape))
    output = {"name": "y", "datatype": "FP32", "shape": list(y.shape), "data": y.flatten().tolist()}
    return {"model_name": "model", "model_version": "1", "id": request.id, "outputs": [output]}
