"""A task on texts of different lengths, with lengths and weights. It writes down what each pass gets and how
its model is asked for.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from raystack.task import Signature, TensorSpec

WORDS, PAD = 32, 0


class Texts:
    """Samples (word numbers [length], index, a random number)."""

    def __init__(self, count: int, longest: int) -> None:
        random = torch.Generator().manual_seed(count)
        self.lengths: Any = torch.randint(1, longest + 1, (count,), generator=random).tolist()
        self.texts = [torch.randint(1, WORDS, (size,), generator=random) for size in self.lengths]
        self.weights: Any = [float(index % 4) for index in range(count)]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        return self.texts[index], index, torch.rand(())


class Bare:
    """The texts without lengths and weights."""

    def __init__(self, texts: Texts) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Any:
        return self.texts[index]


class Net(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 8)
        self.trunk = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.head = nn.Linear(8, classes)
        self.register_buffer("scale", torch.ones(classes))
        self.register_buffer("ramp", torch.arange(float(classes)), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        mask = (ids != PAD).unsqueeze(-1)
        mean = (self.embed(ids) * mask).sum(1) / mask.sum(1)
        result: Tensor = self.head(self.trunk(mean)) * self.scale + self.ramp
        return result


class Begun:
    """`ledger`: folder with a file per rank, one line of JSON for each pass, and `model.jsonl`: how the
    model was asked for.

    `kind`: mean or pair, what the loss is. `pretrained`: a file that the model begins with. `change`: what is
    replaced in the training data, by name.
    """

    signature = Signature(
        inputs=(TensorSpec("ids", "int64", (-1, -1)),), outputs=(TensorSpec("y", "float32", (-1, -1)),)
    )

    def __init__(
        self,
        ledger: str = "",
        count: int = 40,
        longest: int = 12,
        classes: int = 4,
        kind: str = "mean",
        pretrained: str = "",
        bare: bool = False,
        change: Mapping[str, Any] | None = None,
    ) -> None:
        self.ledger, self.classes, self.kind, self.pretrained = ledger, classes, kind, pretrained
        self.data, self.bare = Texts(count, longest), bare
        for name, value in (change or {}).items():
            setattr(self.data, name, value)

    def model(self, *, restored: bool = False) -> nn.Module:
        self.write("model", {"restored": restored})
        net = Net(self.classes)
        if self.pretrained and not restored:
            net.load_state_dict(torch.load(self.pretrained))
        if restored:
            for parameter in net.parameters():
                nn.init.constant_(parameter, float("nan"))  # of no use, unless they are replaced
        return net

    def blocks(self, model: Any) -> list[nn.Module]:
        return [model.trunk]

    def train_data(self) -> Any:
        return Bare(self.data) if self.bare else self.data

    def eval_data(self) -> Any:
        return Texts(5, 6)

    def collate(self, samples: list[Any]) -> dict[str, Tensor]:
        texts, index, drawn = zip(*samples, strict=True)
        return {
            "ids": nn.utils.rnn.pad_sequence(list(texts), batch_first=True, padding_value=PAD),
            "index": torch.tensor(index),
            "drawn": torch.stack(drawn),
        }

    def losses(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch["ids"]), batch["index"] % self.classes, reduction="none")

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Any:
        shape, index = list(batch["ids"].shape), batch["index"].tolist()
        rank = dist.get_rank() if dist.is_initialized() else 0
        self.write(str(rank), {"samples": index, "shape": shape, "drawn": batch["drawn"].tolist()})
        losses = self.losses(model, batch)
        if self.kind == "mean":
            return losses.mean()
        words = (batch["ids"] != PAD).sum(1)
        return (losses * words).sum(), words.sum()

    def metrics(self, model: nn.Module, batch: dict[str, Tensor]) -> Mapping[str, Tensor]:
        return {"loss": self.losses(model, batch)}

    def predict(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"y": model(inputs["ids"])}

    def write(self, name: str, line: dict[str, Any]) -> None:
        if self.ledger:
            with Path(self.ledger, f"{name}.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
