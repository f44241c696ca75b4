"""A small regression whose model has what parameter groups tell apart: an input, blocks, norms and a head."""

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raystack.task import Signature, TensorSpec

WIDTH, SAMPLES = 6, 44


class Block(nn.Module):
    """A norm, a layer with a bias, a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + torch.tanh(self.inner(self.norm(x)))
        return result


class Model(nn.Module):
    """An input layer, two blocks, a norm and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.head(self.norm(x))
        return result


class Samples:
    """Pairs (x [6], y [2]) that depend on their index alone."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(WIDTH, generator=torch.Generator().manual_seed(index))
        return x, torch.stack([x.sum(), x.prod()])


class Grouped:
    """The regression as a task."""

    signature = Signature((TensorSpec("x", "float32", (-1, WIDTH)),), (TensorSpec("y", "float32", (-1, 2)),))

    def model(self) -> nn.Module:
        return Model()

    def blocks(self, model: nn.Module) -> Iterable[nn.Module]:
        assert isinstance(model, Model)
        return model.blocks

    def train_data(self) -> Samples:
        return Samples()

    def eval_data(self) -> None:
        return None

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        return F.mse_loss(model(x), y)

    def metrics(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
        return {}

    def predict(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"y": model(inputs["x"])}
