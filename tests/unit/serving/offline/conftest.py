"""A model with an input of four numbers, one with texts of any length, and what predicts with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from raystack import Experiment
from raystack.checkpoint.model import ModelSpec, write_spec
from raystack.checkpoint.weights import write_weights
from raystack.code.archive import pack
from raystack.events import PredictionEvent
from raystack.outcome import Prediction
from raystack.task import Signature, TensorSpec

TINY = Path(__file__).parents[3] / "tiny" / "config.yaml"
ROWS = 200
Predict = Callable[..., Prediction]
SIGNATURES = {
    "numbers": Signature((TensorSpec("x", "float32", (-1, 4)),), (TensorSpec("y", "float32", (-1, 1)),)),
    "lists": Signature(
        (TensorSpec("tokens", "int64", (-1, -1)),),
        (TensorSpec("doubled", "int64", (-1, -1)), TensorSpec("total", "int64", (-1,))),
    ),
    "texts": Signature((TensorSpec("text", "bytes", (-1,)),), (TensorSpec("upper", "bytes", (-1, 2)),)),
    "images": Signature((TensorSpec("x", "uint8", (-1, 2, 3)),), (TensorSpec("mean", "float32", (-1,)),)),
}
CODE = """
import time
import numpy as np
import torch
from torch import nn

class Task:
    signature = None
    def __init__(self, kind, pass_s=0.0): self.kind, self.pass_s = kind, pass_s
    def model(self): return nn.Linear(4, 1)
    def train_data(self): return []
    def eval_data(self): return None
    def loss(self, model, batch): raise NotImplementedError
    def metrics(self, model, batch): return {}
    def predict(self, model, inputs):
        time.sleep(self.pass_s)
        if self.kind == "lists":
            tokens = inputs["tokens"]
            return {"doubled": 2 * tokens, "total": tokens.sum(1)}
        if self.kind == "texts":
            return {"upper": np.array([[text.decode().upper(), text] for text in inputs["text"]], object)}
        x = inputs["x"]
        if self.kind == "images":
            return {"mean": x.float().mean((1, 2))}
        if bool((x == 13).any()): raise ValueError("a bad sample")
        return {"y": model(x)}
"""


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """Writes the `model/` folder of one of SIGNATURES; each pass takes `pass_s` at least."""

    def write(kind: str = "numbers", pass_s: float = 0.0, seed: int = 0) -> Path:
        code, folder = tmp_path / f"code-{kind}-{seed}", tmp_path / f"model-{kind}-{seed}"
        code.mkdir()
        folder.mkdir()
        (code / "offline_task.py").write_text(CODE, encoding="utf-8")
        args = {"kind": kind, "pass_s": pass_s}
        card = ModelSpec("offline_task:Task", args, SIGNATURES[kind], f"demo-{seed}", 12, {})
        write_spec(folder, card, pack(code))
        torch.manual_seed(seed)
        write_weights(folder, torch.nn.Linear(4, 1).state_dict())
        return folder

    return write


@pytest.fixture
def x() -> npt.NDArray[np.float32]:
    """The numbers of ROWS rows."""
    return np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)


@pytest.fixture
def predict(tmp_path: Path) -> Predict:
    """Predicts into the folder `out`, 64 rows a part; `events` gets what is told."""

    def run(
        model: Path | str,
        inputs: Any,
        *overrides: str,
        events: list[PredictionEvent] | None = None,
        **options: Any,
    ) -> Prediction:
        experiment = Experiment(
            TINY,
            f"serving.model='{model}'",
            f"experiment.storage={tmp_path}",
            "predict={batch: 16, part_rows: 64}",
            *overrides,
        )
        told = [] if events is None else events
        return experiment.predict(inputs, tmp_path / "out", on_event=told.append, **options)

    return run
