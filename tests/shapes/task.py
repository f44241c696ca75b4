"""One small regression with models of many shapes: what real models have that a perceptron has not."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from raystack.task import Signature, TensorSpec

WIDTH, WORDS = 8, 13


class Samples:
    """Samples (x [8], y [1], length) that depend on their index alone."""

    def __init__(self, first: int, length: int) -> None:
        self.first, self.length = first, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(self.first + index)
        x = torch.randn(WIDTH, generator=generator)
        return x, x.sum(0, keepdim=True) + 0.1, 1 + index % 3


class Block(nn.Module):
    """A layer of the width of its input, with what `between` makes after it."""

    def __init__(self, between: Callable[[], nn.Module] = nn.Tanh) -> None:
        super().__init__()
        # No bias: before a batch norm its gradient is rounding noise, which Adam brings to full size.
        self.inner, self.between = nn.Linear(WIDTH, WIDTH, bias=False), between()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.between(self.inner(x))
        return result


class Stack(nn.Module):
    """Two blocks and a head."""

    def __init__(self, *between: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(each) for each in between))
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.blocks(x))
        return result


class Tied(Stack):
    """The layers of both blocks have one weight."""

    def __init__(self) -> None:
        super().__init__(nn.Tanh, nn.Tanh)
        first, second = self.blocks
        assert isinstance(first, Block)
        assert isinstance(second, Block)
        second.inner.weight = first.inner.weight


class Frozen(Stack):
    """The first block is not trained, and in eval mode for good."""

    def __init__(self) -> None:
        super().__init__(_noisy, nn.Tanh)
        self.blocks[0].requires_grad_(False).eval()


class Unused(Stack):
    """A layer that no forward pass calls."""

    def __init__(self) -> None:
        super().__init__(nn.Tanh, nn.Tanh)
        self.unused = nn.Linear(WIDTH, WIDTH)


class Complex(nn.Module):
    """Weights of complex numbers, as in a Fourier layer."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(WIDTH // 2 + 1, dtype=torch.complex64))
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(torch.fft.irfft(torch.fft.rfft(x) * self.filter, n=WIDTH))
        return result


class Jagged(Stack):
    """The input is a nested tensor of sequences of different lengths."""

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_nested:
            return super().forward(x)
        rows: Tensor = super().forward(x.values())
        parts = torch.tensor_split(rows, x.offsets()[1:-1].tolist())  # type: ignore[attr-defined]
        return torch.stack([part.mean(0) for part in parts])


class Scaled(nn.Module):
    """Divides by a number that is neither a parameter nor a buffer, and grows with each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.passes += 1
        return x / (1 + 0.1 * self.passes)

    def get_extra_state(self) -> dict[str, int]:
        return {"passes": self.passes}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.passes = state["passes"]


class Sparse(nn.Module):
    """An embedding whose gradients are sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH, sparse=True)

    def forward(self, x: Tensor) -> Tensor:
        words = (x[:, :2].abs() * 100).long() % WORDS
        result: Tensor = self.words(words).sum((1, 2))[:, None] * 0.1
        return result


class Compiled(Stack):
    """A part of it is compiled by the task itself."""

    def __init__(self) -> None:
        super().__init__(nn.Tanh, nn.Tanh)
        self._blocks = torch.compile(self.blocks.forward, backend="aot_eager")

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self._blocks(x))
        return result


def _norm() -> nn.Module:
    return nn.BatchNorm1d(WIDTH)


def _noisy() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(WIDTH), nn.Dropout(0.3))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "batchnorm": lambda: Stack(_norm, nn.Tanh),
    "dropout": lambda: Stack(lambda: nn.Dropout(0.3), nn.Tanh),
    "tied": Tied,
    "frozen": Frozen,
    "unused": Unused,
    "complex": Complex,
    "jagged": lambda: Jagged(nn.Tanh, nn.Tanh),
    "double backward": lambda: Stack(nn.Tanh, nn.Tanh),
    "extra state": lambda: Stack(Scaled, nn.Tanh),
    "sparse": Sparse,
    "compiled": Compiled,
    "recomputed": lambda: Stack(_noisy, _norm),
}


class Shapes:
    """A Task whose model is one of MODELS."""

    signature = Signature(
        inputs=(TensorSpec("x", "float32", (-1, WIDTH)),), outputs=(TensorSpec("y", "float32", (-1, 1)),)
    )

    def __init__(self, shape: str) -> None:
        self.shape = shape

    def model(self) -> nn.Module:
        return MODELS[self.shape]()

    def blocks(self, model: nn.Module) -> list[nn.Module]:
        return list(model.blocks) if isinstance(model, Stack) and self.shape != "tied" else []

    def train_data(self) -> Samples:
        return Samples(0, 48)

    def eval_data(self) -> Samples:
        return Samples(1000, 11)

    def collate(self, samples: list[tuple[Tensor, Tensor, int]]) -> tuple[Tensor, Tensor]:
        y = torch.stack([sample[1] for sample in samples])
        if self.shape != "jagged":
            return torch.stack([sample[0] for sample in samples]), y
        rows = [sample[0].expand(sample[2], WIDTH) for sample in samples]
        return torch.nested.nested_tensor(rows, layout=torch.jagged), y

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        if self.shape != "double backward":
            return nn.functional.mse_loss(model(x), y)
        x = x.requires_grad_()
        found = model(x)
        (slope,) = torch.autograd.grad(found.sum(), x, create_graph=True)
        return nn.functional.mse_loss(found, y) + 0.1 * slope.pow(2).mean()

    def metrics(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
        x, y = batch
        return {"error": (model(x) - y).pow(2).squeeze(1)}

    def predict(self, model: nn.Module, inputs: Mapping[str, Any]) -> Mapping[str, Tensor]:
        return {"y": model(inputs["x"])}
