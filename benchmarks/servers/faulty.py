"""A task that is never trained: it sums two numbers, and fails, is slow or answers wrongly if asked to."""

import random
import time
from typing import Any

import torch
from torch import nn

from raystack.task import Signature, TensorSpec


class Faulty:
    """Answers the sum of x."""

    signature = Signature((TensorSpec("x", "float32", (-1, 2)),), (TensorSpec("sum", "float32", (-1,)),))

    def __init__(self, fails: float = 0.0, slow_s: float = 0.0, wrong: float = 0.0) -> None:
        """`fails`, `wrong`: shares of the requests; `slow_s`: seconds that each takes longer."""
        self.fails, self.slow_s, self.wrong = fails, slow_s, wrong

    def model(self) -> nn.Module:
        return nn.Linear(2, 1)

    def train_data(self) -> list[Any]:
        return []

    def eval_data(self) -> None:
        return None

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        raise NotImplementedError

    def metrics(self, model: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
        return {}

    def predict(self, model: nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x = inputs["x"]
        if x.abs().sum() == 0:  # what checks the model, and warms it up
            return {"sum": x.sum(1)}
        if random.random() < self.fails:
            raise RuntimeError("a bad version")
        time.sleep(self.slow_s)
        return {"sum": x.sum(1) + (1.0 if random.random() < self.wrong else 0.0)}
