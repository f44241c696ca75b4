"""Tasks that do what a task may do and few do, or what none may."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raystack.task import Signature, TensorSpec

LENGTHS = [2, 17, 3, 9, 1, 12, 2, 5, 7, 1, 1, 20, 4]
WORDS, PADDING = 11, 0


class Rows:
    """Samples (x [4], y [1]), as many as asked for."""

    def __init__(self, length: int = 32) -> None:
        self.x = torch.randn(length, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index], self.x[index].sum(0, keepdim=True)


class Base:
    """A small regression."""

    signature = Signature(
        inputs=(TensorSpec("x", "float32", (-1, 4)),), outputs=(TensorSpec("y", "float32", (-1, 1)),)
    )

    def model(self) -> nn.Module:
        return nn.Linear(4, 1)

    def train_data(self) -> Any:
        return Rows()

    def eval_data(self) -> Any:
        return Rows(5)

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return F.mse_loss(model(batch[0]), batch[1])

    def metrics(self, model: nn.Module, batch: Any) -> Any:
        return {"mse": (model(batch[0]) - batch[1]).square().mean(1)}

    def predict(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"y": model(inputs["x"])}


class Texts:
    """Texts of different lengths; the last ones of a step are all padding."""

    def __len__(self) -> int:
        return len(LENGTHS)

    def __getitem__(self, index: int) -> Tensor:
        words = torch.randint(1, WORDS, (LENGTHS[index] + 1,), generator=torch.Generator().manual_seed(index))
        return torch.zeros_like(words) if index == 4 else words


class Tokens(Base):
    """A language model whose loss is a sum over tokens and their number."""

    signature = Signature(
        inputs=(TensorSpec("t", "int64", (-1, -1)),), outputs=(TensorSpec("y", "float32", (-1, WORDS)),)
    )

    def __init__(self, count: str = "tensor") -> None:
        self.count = count

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Embedding(WORDS, 16), nn.Tanh(), nn.Linear(16, WORDS))

    def train_data(self) -> Any:
        return Texts()

    def eval_data(self) -> None:
        return None

    def collate(self, samples: list[Tensor]) -> Tensor:
        return nn.utils.rnn.pad_sequence(samples, batch_first=True)

    def loss(self, model: nn.Module, batch: Tensor) -> Any:
        losses = F.cross_entropy(
            model(batch[:, :-1]).transpose(1, 2), batch[:, 1:], ignore_index=PADDING, reduction="sum"
        )
        count = (batch[:, 1:] != PADDING).sum()
        return losses, int(count) if self.count == "int" else count

    def predict(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"y": model(inputs["t"])[:, -1]}


class Returned(Base):
    """A loss of the kind `what`."""

    def __init__(self, what: str) -> None:
        self.what = what

    def loss(self, model: nn.Module, batch: Any) -> Any:
        losses = (model(batch[0]) - batch[1]).square()
        mean = losses.mean()
        kinds = {
            "one element": mean.view(1, 1),
            "tuple": (mean, {"mse": mean}),
            "three": (mean, 1, 2),
            "dict": {"loss": mean},
            "list": [mean],
            "nothing": None,
            "float": float(mean.detach()),
            "per sample": losses.mean(1),
            "detached": mean.detach(),
            "complex": mean * 1j,
            "not a number": mean * float("nan"),
        }
        return kinds[self.what]


class Measured(Base):
    """Metrics that raise in call `raise_at`, counted from 1; the first is before the training."""

    def __init__(self, raise_at: int = 0) -> None:
        self.raise_at, self.calls = raise_at, 0

    def metrics(self, model: nn.Module, batch: Any) -> Any:
        self.calls += 1
        if self.calls == self.raise_at:
            raise KeyError("labels")
        return super().metrics(model, batch)


class Remembering(nn.Module):
    """What is neither a parameter nor a buffer of a shape known from the start.

    `keeps`: what it returns as extra state.
    """

    seen: Tensor
    late: Tensor | None

    def __init__(self, keeps: str) -> None:
        super().__init__()
        self.inner, self.keeps, self.largest = nn.Linear(4, 1), keeps, 1.0
        self.register_buffer("seen", torch.zeros(0, 4))
        self.register_buffer("late", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.largest = max(self.largest, float(x.abs().max()))
            self.seen = torch.cat([self.seen, x[:1]])
            self.late = x.mean(0) if self.late is None else self.late + x.mean(0)
        assert self.late is None or len(self.late) == 4
        result: Tensor = self.inner(x / self.largest)
        return result

    def get_extra_state(self) -> Any:
        if self.keeps == "object":
            return self
        return {"largest": torch.tensor(self.largest), "also": [(1, None, "x", b"y", 0.5)], 3: True}

    def set_extra_state(self, state: Any) -> None:
        assert state["also"] == [(1, None, "x", b"y", 0.5)]
        assert state[3] is True
        self.largest = float(state["largest"])


class Remembers(Base):
    def __init__(self, keeps: str = "values") -> None:
        self.keeps = keeps

    def model(self) -> nn.Module:
        return nn.Sequential(Remembering(self.keeps))


class Shaped(Base):
    """A model that cannot be trained, or not under every strategy."""

    def __init__(self, what: str) -> None:
        self.what = what

    def model(self) -> nn.Module:
        model: Any = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
        match self.what:
            case "lazy":
                return nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 1))
            case "frozen":
                model.requires_grad_(False)
            case "layout":
                model[0].weight = nn.Parameter(torch.randn(4, 4).t())
            case "overlap":
                model[1].weight = nn.Parameter(model[0].weight.data.view(-1)[2:6].view(1, 4))
            case "tied wrongly":
                model[1].bias = nn.Parameter(model[0].bias.data[:1])
            case "long complex":
                model.register_parameter("phase", nn.Parameter(torch.ones(2, dtype=torch.complex128)))
            case "embedding":
                model = nn.Sequential(nn.Linear(4, 1), nn.Embedding(5, 2, sparse=True))
            case "buffers":
                model.register_buffer("turned", torch.arange(6.0).view(2, 3).t())
                model.register_buffer("spread", torch.tensor(2.0).expand(3))
        return model  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Has methods and attributes of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head, self.temperature = nn.Linear(4, 3), nn.Linear(3, 1), 2.0

    def encode(self, x: Tensor) -> Tensor:
        return torch.tanh(self.inner(x))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.encode(x)) / self.temperature
        return result


class Encodes(Base):
    """A loss that calls a part of the model beside the whole, and reads an attribute."""

    def model(self) -> nn.Module:
        return Encoder()

    def loss(self, model: Any, batch: Any) -> Any:
        code = model.encode(batch[0])
        return super().loss(model, batch) * model.temperature + code.square().mean()


class First(nn.Sequential):
    """Uses its first layer alone."""

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self[0](x)
        return result


class Partial(Base):
    """A model that has a layer which no forward pass uses."""

    def model(self) -> nn.Module:
        return First(nn.Linear(4, 1), nn.Linear(4, 4))


class Penalty(Base):
    """A loss that takes gradients itself."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))

    def loss(self, model: nn.Module, batch: Any) -> Any:
        x = batch[0].requires_grad_()
        found = model(x)
        (slope,) = torch.autograd.grad(found.sum(), x, create_graph=True)
        return F.mse_loss(found, batch[1]) + slope.square().mean()
