"""The same endpoint on BentoML: `bentoml serve bento_app:Model`."""

from typing import Any

import bentoml
import network
import torch


@bentoml.service(workers=1, traffic={"timeout": 60})
class Model:
    def __init__(self) -> None:
        self.model = network.read()

    @bentoml.api(route="/v2/models/model/infer")
    async def infer(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        given = inputs[0]
        with torch.inference_mode():
            y = self.model(torch.tensor(given["data"], dtype=torch.float32).reshape(given["shape"]))
        output = {"name": "y", "datatype": "FP32", "shape": list(y.shape), "data": y.flatten().tolist()}
        return {"model_name": "model", "model_version": "1", "outputs": [output]}
