"""The task of examples/02_language_model with a clock in its loss, the same clock for everything that is compared.

`loss` is called once per step, so the time between two calls is the time of a whole step, whoever runs the loop. Rank 0
writes what it noted to a file when the last step begins.
"""

import json
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn


class Timed:
    """`example`: folder of the task. `record`: file to write. `steps`: of the whole run. `args`: of the task.

    The record holds `calls`, seconds on this process's clock at each call of `loss`; `epoch`, what to add to them to get
    seconds since 1970; and `losses`, the values. It has no `demonstrate` and no eval data: nothing of that is compared.
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
        return model

    def train_data(self) -> Any:
        return self.inner.train_data()

    def eval_data(self) -> None:
        return None

    def tokens(self, batch: Tensor) -> int:
        return int(self.inner.tokens(batch))

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        self.calls.append(time.perf_counter())
        if len(self.calls) == self.steps and dist.get_rank() == 0:
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
        values = {"calls": self.calls, "epoch": time.time() - time.perf_counter(), "losses": [float(loss) for loss in self.losses]}
        partial = self.record.with_suffix(".partial")
        partial.write_text(json.dumps(values), encoding="utf-8")
        partial.rename(self.record)
