"""The same endpoint on LitServe: `python litserve_app.py PORT`."""

import sys
from typing import Any

import litserve as ls
import network
import torch


class Model(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.model = network.read()

    def decode_request(self, request: dict[str, Any]) -> torch.Tensor:
        given = request["inputs"][0]
        return torch.tensor(given["data"], dtype=torch.float32).reshape(given["shape"])

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return self.model(x)

    def encode_response(self, y: torch.Tensor) -> dict[str, Any]:
        output = {"name": "y", "datatype": "FP32", "shape": list(y.shape), "data": y.flatten().tolist()}
        return {"model_name": "model", "model_version": "1", "outputs": [output]}


if __name__ == "__main__":
    server = ls.LitServer(Model(api_path="/v2/models/model/infer"), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
