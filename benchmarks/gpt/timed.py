"""The task of examples/02_language_model with a clock in its loss, the same clock for everything that is
compared.

`loss` is called once per step, so the time between two calls is the time of a whole step, whoever runs the
loop. Rank 0 writes what it noted to a file when the last step begins.
"""

import json
import sys
import time
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Timed:
    """`example`: folder of the task. `record`: file to write. `steps`: of the whole run. `args`: of the task.

    The record holds `calls`, seconds on this process's clock at each call of `loss`; `epoch`, what to add to
    them to get seconds since 1970; `losses`, the values; `parameters`, how many; and `device`, the GPU's
    name, empty without one. It has no `demonstrate` and no eval data: nothing of that is compared.
    """

    def __init__(self, example: str, record: str, steps: int, **args: Any) -> None:
        if example not in sys.path:
            sys.path.insert(0, example)
        self.inner = import_module("task").LanguageModel(**args)
        self.signature = self.inner.signature
        self.record, self.steps = Path(record), steps
        self.calls: list[float] = []
        self.losses: list[Tensor] = []

    def model(self) -> nn.Module:
        model: nn.Module = self.inner.model()
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        return model

    def blocks(self, model: nn.Module) -> Iterable[nn.Module]:
        blocks: Iterable[nn.Module] = self.inner.blocks(model)
        return blocks

    def train_data(self) -> Any:
        return self.inner.train_data()

    def eval_data(self) -> None:
        return None

    def tokens(self, batch: Tensor) -> int:
        return int(self.inner.tokens(batch))

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        self.calls.append(time.perf_counter())
        if len(self.calls) == self.steps and (not dist.is_initialized() or dist.get_rank() == 0):
            self._write()
        loss: Tensor = self.inner.loss(model, batch)
        self.losses.append(loss.detach())
        return loss

    def metrics(self, model: nn.Module, batch: Tensor) -> Mapping[str, Tensor]:
        metrics: Mapping[str, Tensor] = self.inner.metrics(model, batch)
        return metrics

    def predict(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        outputs: Mapping[str, Tensor] = self.inner.predict(model, inputs)
        return outputs

    def _write(self) -> None:
        on_gpu = self.losses[0].is_cuda
        values = {
            "calls": self.calls,
            "epoch": time.time() - time.perf_counter(),
            "losses": [float(loss) for loss in self.losses],
            "parameters": self.parameters,
            "device": torch.cuda.get_device_name() if on_gpu else "",
        }
        partial = self.record.with_suffix(".partial")
        partial.write_text(json.dumps(values), encoding="utf-8")
        partial.rename(self.record)


class Wide(Timed):
    """The same with a `vocabulary` as large as GPT-2's, of which the text uses the first 256: the shapes of
    its matrices are what costs time.
    """

    def __init__(self, vocabulary: int, **args: Any) -> None:
        super().__init__(**args)
        self.vocabulary = vocabulary

    def model(self) -> nn.Module:
        model: Any = self.inner.model()
        width = model.token.embedding_dim
        model.token, model.head = (
            nn.Embedding(self.vocabulary, width),
            nn.Linear(width, self.vocabulary, bias=False),
        )
        nn.init.normal_(model.token.weight, std=0.02)
        model.head.weight = model.token.weight
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        whole: nn.Module = model
        return whole
