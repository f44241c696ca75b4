"""A signature with two inputs, and `model/` folders of small tasks that can be wrong in one way each."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from raystack.checkpoint.model import ModelSpec, write_spec
from raystack.checkpoint.weights import write_weights
from raystack.code.archive import pack
from raystack.serving.protocol import Contract
from raystack.task import Signature, TensorSpec

CODE = """
import torch
from torch import nn
from raystack.task import Signature, TensorSpec

class Task:
    inputs = (TensorSpec("x", "float32", (-1, 4)),)
    signature = Signature(inputs, (TensorSpec("y", "float32", (-1, 1)), TensorSpec("passes", "int64", (-1,))))
    passes = 0
    def __init__(self, broken=None): self.broken = broken
    def model(self):
        if self.broken == "model": raise RuntimeError("no such layer")
        return nn.Linear(4, 1)
    def train_data(self): return []
    def eval_data(self): return None
    def loss(self, model, batch): raise NotImplementedError
    def metrics(self, model, batch): return {}
    def predict(self, model, inputs):
        x = inputs["x"]
        if self.broken == "predict": raise ValueError("a bad sample")
        if self.broken == "sample" and bool((x == 13).any()): raise ValueError("a bad sample")
        self.passes += 1
        y, passes = model(x), torch.full((len(x),), self.passes)
        if self.broken == "dtype": return {"y": y.double(), "passes": passes}
        if self.broken == "shape": return {"y": y[:, 0], "passes": passes}
        if self.broken == "name": return {"z": y, "passes": passes}
        if self.broken == "type": return {"y": y.tolist(), "passes": passes}
        return {"y": y, "passes": passes}
"""


@pytest.fixture
def contract() -> Contract:
    """Inputs `x` FP32 [-1, 2] and `n` INT64 [-1, -1]; outputs `y` FP32 [-1, 1] and `label` INT64 [-1]."""
    inputs = (TensorSpec("x", "float32", (-1, 2)), TensorSpec("n", "int64", (-1, -1)))
    outputs = (TensorSpec("y", "float32", (-1, 1)), TensorSpec("label", "int64", (-1,)))
    return Contract("demo", "3", Signature(inputs, outputs))


@pytest.fixture
def threads() -> Iterator[None]:
    """A predictor sets the process's compute threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model_folder(tmp_path: Path) -> Callable[[str | None], Path]:
    """Writes a `model/` folder whose task is broken as it is told, and returns it."""

    def write(broken: str | None = None) -> Path:
        code, folder = tmp_path / "code", tmp_path / "model"
        code.mkdir()
        folder.mkdir()
        (code / "demo_task.py").write_text(CODE, encoding="utf-8")
        torch.manual_seed(0)
        signature = Signature(
            (TensorSpec("x", "float32", (-1, 4)),),
            (TensorSpec("y", "float32", (-1, 1)), TensorSpec("passes", "int64", (-1,))),
        )
        card = ModelSpec(
            entry="demo_task:Task",
            args={"broken": broken},
            signature=signature,
            run_id="demo-1",
            step=12,
            metrics={},
        )
        write_spec(folder, card, pack(code))
        write_weights(folder, torch.nn.Linear(4, 1).state_dict())
        return folder

    return write
