"""A server over HTTP and gRPC on one event loop, in a thread: the models `mlp`, of a model's folder, and
`echo`, of all datatypes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import grpc
import torch

from raystack.checkpoint.model import ModelSpec, write_spec
from raystack.checkpoint.weights import write_weights
from raystack.code.archive import pack
from raystack.serving.engine import Engine, ModelEngine
from raystack.serving.grpc.services import add
from raystack.serving.predictor import Predictor
from raystack.serving.protocol import Contract
from raystack.serving.protocol.tensors import DATATYPES
from raystack.serving.rest.body import Limits
from raystack.serving.server import Admission, Model, Server, Version
from raystack.task import Signature, TensorSpec
from tests.unit.serving.http.web import Web, running

VERSION = "3"
MLP = Signature((TensorSpec("x", "float32", (-1, 4)),), (TensorSpec("y", "float32", (-1, 3)),))
ECHO = Signature(
    tuple(TensorSpec(dtype, dtype, (-1, 2)) for dtype in DATATYPES),
    tuple(TensorSpec(dtype, dtype, (-1, 2)) for dtype in DATATYPES),
)
TASK = """
from torch import nn
from raystack.task import Signature, TensorSpec

class Served:
    signature = Signature((TensorSpec("x", "float32", (-1, 4)),), (TensorSpec("y", "float32", (-1, 3)),))
    def model(self): return nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 3), nn.Softmax(1))
    def train_data(self): return []
    def eval_data(self): return None
    def loss(self, model, batch): raise NotImplementedError
    def metrics(self, model, batch): return {}
    def predict(self, model, inputs): return {"y": model(inputs["x"])}
"""


class Both(NamedTuple):
    """Where a server listens."""

    web: Web
    grpc: str
    """HOST:PORT."""
    server: Server


def write_mlp(folder: Path) -> Path:
    """Write the model's folder; its `model.safetensors` is what another server loads."""
    code, files = folder / "code", folder / "model"
    code.mkdir(parents=True)
    files.mkdir()
    (code / "served_task.py").write_text(TASK, encoding="utf-8")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3))
    card = ModelSpec("served_task:Served", {}, MLP, run_id="mlp-1", step=int(VERSION), metrics={})
    write_spec(files, card, pack(code))
    write_weights(files, network.state_dict())
    return files


def a_server(mlp: Path, largest: int | None = None) -> Server:
    """A server of `mlp` and `echo`."""
    predictor = Predictor.read(mlp, "cpu", 1)
    engines: dict[str, Engine] = {
        "mlp": ModelEngine(predictor.signature, predictor.forward, 8, 0.001),
        "echo": ModelEngine(ECHO, lambda inputs: inputs, 8, 0.001),
    }
    server = Server()
    server.largest = largest
    for name, engine in engines.items():
        server.add(Model(name, Admission(64, 1024)))
        server.put(Version(Contract(name, VERSION, engine.signature), engine, "ready"))
    return server


@contextmanager
def serving(server: Server, limits: Limits = Limits()) -> Iterator[Both]:  # noqa: B008
    """Serve over both on free ports."""

    async def start() -> tuple[grpc.aio.Server, int]:
        started = grpc.aio.server()
        add(started, server)
        port = started.add_insecure_port("127.0.0.1:0")
        await started.start()
        return started, port

    with running(server, limits) as web:
        listening, port = web.run(start())
        try:
            yield Both(web, f"127.0.0.1:{port}", server)
        finally:
            web.run(listening.stop(0))
