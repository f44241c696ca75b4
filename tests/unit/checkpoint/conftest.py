"""Places for checkpoints: a local folder, memory, and an S3 that runs in this process."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import torch
from torch import nn

from raystack import storage
from raystack.checkpoint import (
    MODEL,
    CheckpointStore,
    FileEntry,
    Manifest,
    ModelSpec,
    describe_parameters,
    write_spec,
)
from raystack.checkpoint.sharded import write
from raystack.checkpoint.state import Shard
from raystack.code.archive import pack
from raystack.task import Signature, TensorSpec


@pytest.fixture
def bucket(object_store: object, tmp_path: Path) -> str:
    """URL of an empty bucket."""
    name = tmp_path.name.replace("_", "-").lower().strip("-")[:60]
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


@pytest.fixture(params=["local", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place without checkpoints."""
    match request.param:
        case "local":
            return str(tmp_path / "run" / "checkpoints")
        case "memory":
            return f"memory://{tmp_path}/run/checkpoints"
        case _:
            return f"{request.getfixturevalue('bucket')}/run/checkpoints"


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask a store that is away again at once, and not for long."""
    monkeypatch.setattr(storage, "FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(storage, "LONGEST_WAIT_S", 0.1)
    monkeypatch.setattr(storage, "PATIENCE_S", 0.3)


@pytest.fixture
def save() -> Callable[..., Manifest]:
    """Two workers, each with a Store of its own, write a checkpoint of 2 x 2 KiB of state and publish it."""

    def save(url: str, step: int, attempt: str = "a", **metrics: float) -> Manifest:
        measured = {f"eval/{name}": value for name, value in metrics.items()}
        record = Manifest("run", step, step * 8, 100, 0, 8, 2, "ddp", attempt, metrics=measured)
        state = bytes(range(256)) * 8
        first = {f"{record.state}/0": state, "config.yaml": b"a: 1\n", "model/model.json": b"{}"}
        drafts = [CheckpointStore(url).writer(step, attempt) for _ in range(2)]
        entries: dict[str, FileEntry] = {}
        for draft, files in zip(drafts, (first, {f"{record.state}/1": state[::-1]}), strict=True):
            for name, content in files.items():
                path = draft.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            mine = draft.entries(files)
            draft.send(mine, threading.Event())
            entries.update(mine)
        record = replace(record, files=entries)
        drafts[0].publish(record, threading.Event())
        for draft in drafts:
            draft.drop()
        return record

    return save


CODE = """
import torch
from torch import nn
from raystack.task import Signature, TensorSpec

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.norm = nn.Embedding(5, 3), nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.small = nn.Parameter(torch.zeros(2, 2, dtype=torch.bfloat16))
        self.nothing = nn.Parameter(torch.zeros(0, 4))
        self.register_buffer("scratch", torch.zeros(7), persistent=False)

    def forward(self, x): return self.head(self.norm(self.embedding(x)))

class Task:
    signature = Signature((TensorSpec("x", "int64", (-1,)),), (TensorSpec("y", "float32", (-1, 5)),))
    def model(self): return Tied()
    def train_data(self): return []
    def eval_data(self): return None
    def loss(self, model, batch): raise NotImplementedError
    def metrics(self, model, batch): return {}
    def predict(self, model, inputs): return {"y": model(inputs["x"])}
"""


@pytest.fixture
def tied() -> nn.Module:
    """A module with tied weights, buffers, an empty parameter and one of another type."""
    scope: dict[str, type[nn.Module]] = {}
    exec(CODE, scope)
    torch.manual_seed(1)
    module = scope["Tied"]()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module.eval()


@pytest.fixture
def save_trained(tied: nn.Module, tmp_path: Path) -> Callable[..., Manifest]:
    """One worker publishes a checkpoint of `tied`: its state, in float32 as a strategy may keep it, and its
    card.
    """

    def save(url: str, step: int) -> Manifest:
        code = tmp_path / "code"
        code.mkdir(exist_ok=True)
        (code / "tied_task.py").write_text(CODE)
        signature = Signature((TensorSpec("x", "int64", (-1,)),), (TensorSpec("y", "float32", (-1, 5)),))
        card = ModelSpec("tied_task:Task", {}, signature, "run", step, {}, describe_parameters(tied))
        record = Manifest("run", step, step * 8, 100, 0, 8, 1, "ddp", "a")
        draft = CheckpointStore(url).writer(step, "a")
        tensors = {name: tied.state_dict()[name] for name in card.parameters}
        kept = {
            name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
        }
        write(
            draft.folder / record.state,
            {f"model/{name}": Shard.whole(tensor) for name, tensor in kept.items()},
            None,
        )
        (draft.folder / MODEL).mkdir()
        write_spec(draft.folder / MODEL, card, pack(code))
        (draft.folder / "config.yaml").write_text("a: 1\n")
        record = replace(record, files=draft.entries())
        draft.send(record.files, threading.Event())
        draft.publish(record, threading.Event())
        draft.drop()
        return record

    return save
