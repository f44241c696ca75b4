"""A task whose gradient is summed in an order of chance unless torch is told otherwise; `broken` uses an
operation that has no deterministic form.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from raystack.task import Signature, TensorSpec

WORDS, ROWS = 8, 40_000


class Rows:
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return torch.randint(WORDS, (ROWS,), generator=torch.Generator().manual_seed(index))


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WORDS, 3))

    def forward(self, words: Tensor) -> Tensor:
        return self.weight[words]


class Exact:
    signature = Signature(
        inputs=(TensorSpec("words", "int64", (-1, ROWS)),), outputs=(TensorSpec("y", "float32", (-1,)),)
    )

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken

    def model(self) -> nn.Module:
        return Table()

    def train_data(self) -> Rows:
        return Rows()

    def eval_data(self) -> None:
        return None

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        rows: Tensor = model(batch)
        if self.broken:
            rows = rows.flatten().put(torch.tensor([0]), torch.tensor([1.0]))
        return (rows.sin() * torch.linspace(0, 1, rows.numel()).view_as(rows)).mean()

    def metrics(self, model: nn.Module, batch: Tensor) -> Mapping[str, Tensor]:
        return {}

    def predict(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"y": model(inputs["words"]).sum((1, 2))}
