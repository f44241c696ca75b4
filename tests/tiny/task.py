"""A task for tests: a small regression that can misbehave on demand and writes down which samples it
consumed.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from raystack.task import Signature, TensorSpec


class Samples:
    """`length` samples (x [4], y [1], id); the id tells which sample was consumed."""

    def __init__(self, length: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(length, 4, generator=generator)
        self.y = self.x.sum(1, keepdim=True) + 0.1 * torch.randn(length, 1, generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        return self.x[index], self.y[index], index


class Squash(nn.Module):
    """A block that is the task's own."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


class Tiny:
    """`nan_at`: the forward pass whose loss is NaN. `raise_at`: the one that raises. `step_s`: how long each
    takes at least.

    `ledger`: a folder; every forward pass in training appends a line of sample ids to a file of this process,
    whose name is the time of its first one and the process's id. `hang_at`: the pass that never ends, on the
    worker that gets there first.
    """

    signature = Signature(
        inputs=(TensorSpec("x", "float32", (-1, 4)),), outputs=(TensorSpec("y", "float32", (-1, 1)),)
    )

    def __init__(
        self,
        length: int = 96,
        dropout: float = 0.0,
        nan_at: int | None = None,
        raise_at: int | None = None,
        step_s: float = 0.0,
        ledger: str | None = None,
        hang_at: int | None = None,
        broken: str | None = None,
    ) -> None:
        if broken == "build":
            raise RuntimeError("no such table")
        self.length, self.dropout, self.nan_at, self.raise_at, self.step_s = (
            length,
            dropout,
            nan_at,
            raise_at,
            step_s,
        )
        self.hang_at, self.broken, self.passes = hang_at, broken, 0
        self.ledger, self.page = ledger, f"{time.time_ns()}-{os.getpid()}.txt"

    def model(self) -> nn.Module:
        if self.broken == "model":
            raise RuntimeError("no such layer")
        return nn.Sequential(nn.Linear(4, 8), Squash(), nn.Dropout(self.dropout), nn.Linear(8, 1))

    def blocks(self, model: nn.Sequential) -> list[nn.Module]:
        return list(model)

    def train_data(self) -> Samples:
        return Samples(self.length)

    def eval_data(self) -> Samples:
        return Samples(37)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, y, ids = batch
        self.passes += 1
        if self.raise_at == self.passes:
            raise ValueError("a bad sample")
        if self.ledger is not None:
            with Path(self.ledger, self.page).open("a") as file:
                file.write(" ".join(str(int(index)) for index in ids) + "\n")
        if self.hang_at == self.passes and self._is_first():
            time.sleep(3600)
        time.sleep(self.step_s)
        loss: Tensor = (model(x) - y).pow(2).mean()
        return loss * float("nan") if self.nan_at == self.passes else loss

    def _is_first(self) -> bool:
        """Whether no other worker, and no earlier attempt, has come here."""
        assert self.ledger is not None
        try:
            with Path(self.ledger, "hung").open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            return False
        return True

    def metrics(
        self, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]
    ) -> Mapping[str, Tensor | tuple[Tensor, Tensor]]:
        x, y, _ = batch
        error = (model(x) - y).pow(2).squeeze(1)
        return {"error": error, "ratio": (error, torch.ones_like(error) * 2)}

    def predict(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if self.broken == "shifted" and inputs["x"].mean() > 1:
            raise RuntimeError("a bad version")
        return {"y": model(inputs["x"])}
