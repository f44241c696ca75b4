"""The model `demo` of `spoiled.CONTRACT`: adds up its `float32`."""

from pathlib import Path

from torch import nn

from raystack.checkpoint.model import ModelSpec, write_spec
from raystack.checkpoint.weights import write_weights
from raystack.code.archive import pack
from raystack.serving.engine import Arrays, ModelEngine
from raystack.serving.server import Admission, Model, Server, Version
from tests.unit.serving.spoiled import CONTRACT, DTYPES

TASK = f"""
from torch import nn
from raystack.task import Signature, TensorSpec

class Demo:
    signature = Signature(
        tuple(TensorSpec(dtype, dtype, (-1, 2)) for dtype in {DTYPES}), (TensorSpec("y", "float32", (-1, 1)),)
    )
    def model(self): return nn.Linear(1, 1)
    def train_data(self): return []
    def eval_data(self): return None
    def loss(self, model, batch): raise NotImplementedError
    def metrics(self, model, batch): return {{}}
    def predict(self, model, inputs): return {{"y": inputs["float32"].sum(1, keepdim=True)}}
"""


def add_up(inputs: Arrays) -> Arrays:
    return {"y": inputs["float32"].sum(1, keepdims=True)}


def a_server(largest: int) -> Server:
    """A server of `demo`, with messages of at most `largest` bytes over gRPC."""
    server = Server()
    server.largest = largest
    server.add(Model(CONTRACT.name, Admission(16, 1_000)))
    server.put(Version(CONTRACT, ModelEngine(CONTRACT.signature, add_up, 8, 0.001), "ready"))
    return server


def is_idle(server: Server) -> bool:
    """Whether nothing is held by a request that has ended."""
    model = server.models[CONTRACT.name]
    held = [version.ongoing for version in model.versions.values()]
    return not any((model.admission.ongoing, model.admission.waiting, *held))


def write_demo(folder: Path) -> str:
    """Write the folder of the model, and return it."""
    code, files = folder / "code", folder / "model"
    code.mkdir(parents=True)
    files.mkdir()
    (code / "demo_task.py").write_text(TASK, encoding="utf-8")
    card = ModelSpec("demo_task:Demo", {}, CONTRACT.signature, run_id="demo-1", step=3, metrics={})
    write_spec(files, card, pack(code))
    write_weights(files, nn.Linear(1, 1).state_dict())
    return str(folder)


def resident(pid: int | str = "self") -> int:
    """Bytes that a process has in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
