"""A task that writes down which samples each forward pass got, and the random numbers drawn for them."""

import json
import os
import random
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import IterableDataset, get_worker_info

from raystack.task import Signature, TensorSpec


class Rows:
    """Samples (x [4], index, noise [3]); the noise is one number of each generator.

    `broken`: the sample that raises. `killed`: the one whose process is killed by `signal`, if it is a loader
    process.
    `rare`: only every fifth sample has noise.
    """

    def __init__(
        self,
        count: int,
        broken: int | None = None,
        killed: int | None = None,
        signal: str = "SIGKILL",
        rare: bool = False,
    ) -> None:
        self.x = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
        self.broken, self.killed, self.signal, self.rare = broken, killed, signal, rare

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        if index == self.broken:
            raise UnreadableError(index, "broken image")
        if index == self.killed and get_worker_info() is not None:
            os.kill(os.getpid(), getattr(signal, self.signal))
        if self.rare and index % 5:
            return self.x[index], index, torch.zeros(3)
        return self.x[index], index, noise()


class UnreadableError(ValueError):
    """An error that cannot be built again from its message alone, as many of libraries cannot."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(f"{why} {index}")


class Shards(IterableDataset[Any]):
    """A stream that gives each loader process a part, as PyTorch's documentation shows it; shuffled."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        first, every = (info.id, info.num_workers) if info else (0, 1)
        buffer: list[int] = []
        for index in range(first, len(self.rows), every):
            buffer.append(index)
            if len(buffer) == 10:
                yield self.rows[buffer.pop(random.randrange(10))]
        random.shuffle(buffer)
        yield from (self.rows[index] for index in buffer)


class SizedShards(Shards):
    """Shards that know how many samples they have together."""

    def __len__(self) -> int:
        return len(self.rows)


class Split(Rows):
    """The rows of this rank alone, as many as every rank has."""

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        return super().__getitem__((index * 2 + dist.get_rank()) % len(self))


class Uneven(Rows):
    """The rows of this rank alone, one more on rank 0."""

    def __len__(self) -> int:
        return super().__len__() - dist.get_rank()


class Unseeded(Rows):
    """Rows with noise of a generator that nobody seeds."""

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        x, _, drawn = super().__getitem__(index)
        return x + torch.from_numpy(np.random.default_rng().random(4, np.float32)), index, drawn


class SplitStream(IterableDataset[Any]):
    """A stream of this rank's samples."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        return (self.rows[index] for index in range(dist.get_rank(), len(self.rows), dist.get_world_size()))


def noise() -> Tensor:
    return torch.tensor([float(torch.rand(())), float(np.random.rand()), random.random()])


class Sampled:
    """`ledger`: a folder with a file of each rank, a line of JSON for each forward pass.

    `data`: rows, split, uneven, unseeded, shards, sized or split stream.
    `model`: plain, norm, spread or dropout; spread has a loss that needs two
    samples.
    """

    signature = Signature(
        inputs=(TensorSpec("x", "float32", (-1, 4)),), outputs=(TensorSpec("y", "float32", (-1, 1)),)
    )

    def __init__(
        self, ledger: str = "", count: int = 64, data: str = "rows", model: str = "plain", **rows: Any
    ) -> None:
        self.ledger, self.kind = ledger, model
        by_index = {"split": Split, "uneven": Uneven, "unseeded": Unseeded}.get(data, Rows)(count, **rows)
        stream = {"shards": Shards, "sized": SizedShards, "split stream": SplitStream}.get(data)
        self.data = by_index if stream is None else stream(by_index)

    def model(self) -> nn.Module:
        middle = {"norm": nn.BatchNorm1d(8), "dropout": nn.Dropout(0.5)}.get(self.kind, nn.Identity())
        return nn.Sequential(nn.Linear(4, 8), middle, nn.Linear(8, 1))

    def train_data(self) -> Any:
        return self.data

    def eval_data(self) -> Any:
        return Rows(5)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, index, drawn = batch
        self.write({"samples": index.tolist(), "noise": drawn.tolist(), "step": noise().tolist()})
        y = model(x)
        loss: Tensor = (y.squeeze(1) - x.sum(1)).square().mean()
        return loss + torch.relu(1 - y.std(0)).mean() if self.kind == "spread" else loss

    def metrics(self, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Mapping[str, Any]:
        x, _, drawn = batch
        return {"error": (model(x).squeeze(1) - x.sum(1)).square(), "noise": drawn.sum(1)}

    def predict(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"y": model(inputs["x"])}

    def write(self, line: dict[str, Any]) -> None:
        if self.ledger:
            rank = dist.get_rank() if dist.is_initialized() else 0
            with Path(self.ledger, f"{rank}.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
