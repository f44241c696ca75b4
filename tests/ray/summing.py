"""A small model that says which process answered, and load on it that counts the answers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from raystack.checkpoint.model import ModelSpec, write_spec
from raystack.checkpoint.weights import write_weights
from raystack.code.archive import pack
from raystack.task import Signature, TensorSpec

CODE = '''
import os, time
import torch
from torch import nn
from raystack.task import Signature, TensorSpec

class Summing:
    """Answers the sum of x, and the process that does."""
    outputs = (TensorSpec("sum", "float32", (-1,)), TensorSpec("process", "int64", (-1,)))
    signature = Signature((TensorSpec("x", "float32", (-1, 2)),), outputs)
    def __init__(self, broken=False, takes_s=0.0): self.broken, self.takes_s = broken, takes_s
    def model(self):
        if self.broken:
            raise RuntimeError("no such layer")
        return nn.Linear(2, 1)
    def train_data(self): return []
    def eval_data(self): return None
    def loss(self, model, batch): raise NotImplementedError
    def metrics(self, model, batch): return {}
    def predict(self, model, inputs):
        x = inputs["x"]
        time.sleep(self.takes_s)
        return {"sum": x.sum(1), "process": torch.full((len(x),), os.getpid())}
'''
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
CONNECTIONS = 4


def write(folder: Path, step: int, *, broken: bool = False, takes_s: float = 0.0) -> str:
    import torch

    code, files = folder / "code", folder / "model"
    code.mkdir(parents=True)
    files.mkdir()
    (code / "summing_task.py").write_text(CODE, encoding="utf-8")
    outputs = (TensorSpec("sum", "float32", (-1,)), TensorSpec("process", "int64", (-1,)))
    card = ModelSpec(
        entry="summing_task:Summing",
        args={"broken": broken, "takes_s": takes_s},
        signature=Signature((TensorSpec("x", "float32", (-1, 2)),), outputs),
        run_id="summing-1",
        step=step,
        metrics={},
    )
    write_spec(files, card, pack(code))
    write_weights(files, torch.nn.Linear(2, 1).state_dict())
    return str(folder)


@asynccontextmanager
async def load(url: str, connections: int = CONNECTIONS) -> AsyncIterator["Load"]:
    """Requests on several connections for the time of the block."""
    running = Load(url)
    tasks = [asyncio.create_task(running.ask()) for _ in range(connections)]
    try:
        await asyncio.sleep(0.5)
        yield running
        await asyncio.sleep(0.5)
    finally:
        running.ends = True
        await asyncio.gather(*tasks)


class Load:
    def __init__(self, url: str) -> None:
        self.url, self.ends = url, False
        self.seen: Counter[str] = Counter()
        """Answers by version, or by what went wrong."""
        self.processes: Counter[int] = Counter()

    async def ask(self) -> None:
        async with httpx.AsyncClient(timeout=120) as client:
            while not self.ends:
                try:
                    answer = await client.post(f"{self.url}/infer", json=BODY)
                except httpx.HTTPError as error:
                    self.seen[repr(error)] += 1
                    continue
                if answer.status_code != 200:
                    self.seen[f"{answer.status_code} {answer.text}"] += 1
                    continue
                self.seen[f"version {answer.json()['model_version']}"] += 1
                outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
                assert outputs["sum"] == [3.0]
                self.processes[outputs["process"][0]] += 1
