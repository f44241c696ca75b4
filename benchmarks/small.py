"""The smallest training worth a name, for benchmarks/overhead.py: a perceptron whose loss notes when it is
called.
"""

import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from raystack.task import Signature, TensorSpec

SAMPLES, FEATURES = 4096, 16

CALLS: list[float] = []
"""Seconds on this process's clock at each call of `loss`; whoever starts a run empties it."""


class Small:
    """A sum is learnt."""

    signature = Signature(
        inputs=(TensorSpec("x", "float32", (-1, FEATURES)),), outputs=(TensorSpec("y", "float32", (-1, 1)),)
    )

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 32), nn.Tanh(), nn.Linear(32, 1))

    def train_data(self) -> TensorDataset:
        x = torch.randn(SAMPLES, FEATURES, generator=torch.Generator().manual_seed(0))
        return TensorDataset(x, x.sum(1, keepdim=True))

    def eval_data(self) -> None:
        return None

    def loss(self, model: nn.Module, batch: Sequence[Tensor]) -> Tensor:
        CALLS.append(time.perf_counter())
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    def metrics(self, model: nn.Module, batch: Sequence[Tensor]) -> Mapping[str, Tensor]:
        return {"error": (model(batch[0]) - batch[1]).pow(2).squeeze(1)}

    def predict(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"y": model(inputs["x"])}
