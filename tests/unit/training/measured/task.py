"""A task for tests: a regression over 32 samples, whose model counts its steps."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from raystack.task import Signature, TensorSpec

Batch = tuple[Tensor, Tensor, Tensor]


class Samples:
    """`length` samples (x [4], y [1], index)."""

    def __init__(self, length: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(length, 4, generator=generator)
        self.y = self.x.sum(1, keepdim=True) + 0.5 * torch.randn(length, 1, generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        return self.x[index], self.y[index], index


class Model(nn.Module):
    """Two layers, and the number of forward passes in training."""

    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 8), nn.Linear(8, 1)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
        y: Tensor = self.outer(torch.tanh(self.inner(x)))
        return y


class Measured:
    """`flat_after`: number of steps after which the metric `left` does not change any more."""

    signature = Signature(
        inputs=(TensorSpec("x", "float32", (-1, 4)),), outputs=(TensorSpec("y", "float32", (-1, 1)),)
    )

    def __init__(self, flat_after: int = 3) -> None:
        self.flat_after = flat_after

    def model(self) -> nn.Module:
        return Model()

    def train_data(self) -> Any:
        return Samples(32, seed=0)

    def eval_data(self) -> Any:
        return Samples(11, seed=1)

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        x, y, _ = batch
        return (model(x) - y).pow(2).mean()

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Any]:
        x, y, _ = batch
        steps = next(buffer for buffer in model.buffers())
        left = (self.flat_after - steps).clamp_min(0).expand(len(x))
        return {"error": (model(x) - y).pow(2).squeeze(1), "left": left}

    def predict(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"y": model(inputs["x"])}
