"""The same model as a runtime of MLServer; a process of its own is not asked for (`parallel_workers: 0`)."""

import network
import numpy as np
import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Model(MLModel):
    async def load(self) -> bool:
        self.model = network.read()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)
        with torch.inference_mode():
            y = self.model(torch.from_numpy(x)).numpy()
        return InferenceResponse(
            id=payload.id, model_name=self.name, model_version="1", outputs=[NumpyCodec.encode_output("y", y)]
        )
