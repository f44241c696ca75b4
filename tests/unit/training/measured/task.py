"""A task for tests: a regression over 32 samples, whose model counts its steps."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torchmetrics
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from raystack.task import (
    CheckpointEvent,
    EvaluationEvent,
    HookEvent,
    Progress,
    Signature,
    StepEvent,
    TensorSpec,
)

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
    """`flat_after`: number of steps after which the metric `left` does not change any more.

    `sets`: several eval sets, by their names and sizes. `fails_at`: the step whose evaluation fails.
    """

    signature = Signature(
        inputs=(TensorSpec("x", "float32", (-1, 4)),), outputs=(TensorSpec("y", "float32", (-1, 1)),)
    )

    def __init__(
        self, flat_after: int = 3, sets: Any = None, length: int = 32, fails_at: int | None = None
    ) -> None:
        self.flat_after, self.sets, self.length, self.fails_at = flat_after, sets, length, fails_at

    def model(self) -> nn.Module:
        return Model()

    def train_data(self) -> Any:
        return Samples(self.length, seed=0)

    def eval_data(self) -> Any:
        if self.sets is None:
            return Samples(11, seed=1)
        return {name: Samples(size, seed=2 + size) for name, size in self.sets.items()}

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        x, y, _ = batch
        return (model(x) - y).pow(2).mean()

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Any]:
        x, y, _ = batch
        steps = next(buffer for buffer in model.buffers())
        if self.fails_at == int(steps):
            raise ValueError("no more file handles")
        left = (self.flat_after - steps).clamp_min(0).expand(len(x))
        return {"error": (model(x) - y).pow(2).squeeze(1), "left": left}

    def predict(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"y": model(inputs["x"])}


class Whole(Measured):
    """Also has metrics over whole sets. `broken`: what is wrong with them."""

    def __init__(self, sets: Any = None, broken: str | None = None) -> None:
        super().__init__(sets=sets)
        self.broken = broken

    def eval_data(self) -> Any:
        return {} if self.broken == "no sets" else super().eval_data()

    def meters(self) -> Mapping[str, Any]:
        found: dict[str, Any] = {
            "auroc": torchmetrics.classification.BinaryAUROC(),  # lists of tensors
            "f1": torchmetrics.classification.BinaryF1Score(threshold=0.4),
            "pearson": torchmetrics.PearsonCorrCoef(),  # has a way of its own to merge states
            "largest": torchmetrics.MaxMetric(),
            "double": torchmetrics.MeanSquaredError() * 2,  # two meters inside of one
            "never": torchmetrics.MeanMetric(),
        }
        if self.broken == "kind":
            found["auroc"] = lambda: 1.0
        if self.broken == "vector":
            found["f1"] = torchmetrics.classification.MulticlassF1Score(2, average=None)
        return found

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Any]:
        x, y, _ = batch
        out = model(x)
        scores, targets = torch.sigmoid(out).squeeze(1), (y > 0).int().squeeze(1)
        given = {
            "auroc": (scores, targets),
            "f1": {"preds": scores, "target": targets},
            "pearson": (out.squeeze(1), y.squeeze(1)),
            "largest": out,
            "double": (out, y),
        }
        if self.broken == "update":
            given["pearson"] = (out, y[:0])
        if self.broken == "vector":
            given["f1"] = ((scores > 0.4).int(), targets)
        return {**super().metrics(model, batch), **given}

    def outputs(self, model: nn.Module, batch: Batch) -> Mapping[str, Any]:
        x, y, ids = batch
        if self.broken == "outputs":
            return {"scores": model(x).mean()}
        if self.broken == "ragged":
            return {"scores": model(x).expand(len(x), len(x))}
        return {"scores": model(x).squeeze(1), "targets": y.squeeze(1) > 0, "ids": ids}

    def summarize(self, outputs: Mapping[str, Tensor]) -> Mapping[str, float]:
        if self.broken == "summary":
            return {"area": outputs["scores"]}  # type: ignore[dict-item]
        if self.broken == "raises" or (self.broken == "late" and len(outputs["scores"]) > 8):
            raise ValueError("no positive class")
        if self.broken == "name":
            return {"error": 1.0}
        both = outputs["targets"].unique().numel() == 2
        return {
            "area": roc_auc_score(outputs["targets"], outputs["scores"]) if both else float("nan"),
            "in_order": float(outputs["ids"].tolist() == list(range(len(outputs["ids"])))),
        }


class More(Measured):
    """Its loss returns more values. `pair`: beside a sum and its count. `wrong`: what is wrong with them."""

    def __init__(self, length: int = 30, *, pair: bool = False, wrong: str | None = None) -> None:
        super().__init__(length=length)
        self.pair, self.wrong, self.calls = pair, wrong, 0

    def loss(  # type: ignore[override]
        self, model: nn.Module, batch: Batch, progress: Progress
    ) -> Any:
        x, y, ids = batch
        self.calls += 1
        errors = (model(x) - y).pow(2)
        loss = (errors.sum(), len(x)) if self.pair else errors.mean()
        odd = ids % 2 == 1
        values: dict[Any, Any] = {
            "error": errors.mean(),  # with a gradient
            "ids": ids.double().mean(),
            "odd": ((ids * odd).sum(), odd.sum()),
            "last/nothing": (0, 0),
            "step": progress.step,
            "epochs": progress.epoch,
            "fraction": (progress.fraction * len(x), len(x)),
            "steps": float(progress.steps),
        }
        rank = dist.get_rank() if dist.is_initialized() else 0
        match self.wrong:
            case "vector":
                values["ids"] = ids
            case "text":
                values["ids"] = "many"
            case "taken":
                values["lr"] = 1.0
            case "name":
                values["a=b"] = 1.0
            case "by worker" if rank == 1:
                values["more"] = 1.0
            case "by batch" if self.calls > 3:
                del values["ids"]
            case "three":
                return errors.sum(), len(x), values
        return loss, values


class Keyword(Measured):
    """Takes the progress by its keyword, and another one that has a default."""

    def loss(  # type: ignore[override]
        self, model: nn.Module, batch: Batch, power: int = 2, *, progress: Progress
    ) -> Any:
        x, y, _ = batch
        return (model(x) - y).pow(power).mean(), {"step": progress.step}


class Defaults(Measured):
    """A loss with a third parameter that has a default is called without it."""

    def loss(self, model: nn.Module, batch: Batch, power: int = 2) -> Any:
        x, y, _ = batch
        return (model(x) - y).pow(power).mean()


class Hooked(Measured):
    """Writes down what its hooks are told, a file of lines for each worker. `raises`: the hook that fails."""

    def __init__(self, ledger: str, raises: str | None = None, flat_after: int = 3) -> None:
        super().__init__(flat_after=flat_after)
        self.ledger, self.raises = Path(ledger), raises

    def on_step(self, event: StepEvent) -> None:
        self._write("step", event, "train/loss" in event.metrics)

    def on_evaluate(self, event: EvaluationEvent) -> None:
        self._write("evaluate", event, event.metrics["eval/left"])

    def on_checkpoint(self, event: CheckpointEvent) -> None:
        self._write("checkpoint", event, event.url.rpartition("/")[2])

    def _write(self, name: str, event: HookEvent, what: Any) -> None:
        progress = event.progress
        model = type(event.model).__name__
        told = [name, progress.step, progress.steps, progress.epoch, event.workers, model, what]
        with (self.ledger / f"{event.rank}.jsonl").open("a") as file:
            file.write(json.dumps(told) + "\n")
        if name == self.raises and progress.step >= 2:
            raise ValueError("no room on the board")
