"""The models `mlp` and `echo` as runtimes of MLServer, for a Python that has MLServer and torch."""

import os

import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from safetensors.torch import load_file
from torch import nn

VERSION = "3"


class Mlp(MLModel):
    async def load(self) -> bool:
        torch.set_num_threads(1)
        self.network = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 3), nn.Softmax(1))
        self.network.load_state_dict(load_file(os.environ["WEIGHTS"]))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0])
        with torch.inference_mode():
            y = self.network(torch.tensor(x)).numpy()
        outputs = [NumpyCodec.encode_output("y", y)]
        return InferenceResponse(id=payload.id, model_name=self.name, model_version=VERSION, outputs=outputs)


class Echo(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        outputs = [
            ResponseOutput(name=each.name, shape=each.shape, datatype=each.datatype, data=each.data)
            for each in payload.inputs
        ]
        return InferenceResponse(id=payload.id, model_name=self.name, model_version=VERSION, outputs=outputs)
