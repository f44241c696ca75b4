"""A task of one step that takes one second of CPU time."""

import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from raystack.task import Signature, TensorSpec


class Burn:
    signature = Signature(
        inputs=(TensorSpec("x", "float32", (-1, 1)),), outputs=(TensorSpec("y", "float32", (-1, 1)),)
    )

    def model(self) -> nn.Module:
        return nn.Linear(1, 1)

    def train_data(self) -> Dataset[tuple[Tensor, ...]]:
        return TensorDataset(torch.ones(1, 1))

    def eval_data(self) -> Dataset[tuple[Tensor, ...]]:
        return TensorDataset(torch.ones(1, 1))

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        began = time.process_time()
        while time.process_time() - began < 1.0:
            pass
        loss: Tensor = (model(batch[0]) ** 2).mean()
        return loss

    def metrics(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Mapping[str, Tensor]:
        return {"loss": (model(batch[0]) ** 2).flatten()}

    def predict(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"y": model(inputs["x"])}
