"""Versions of a small model that are right, or fail, are slow, or answer wrongly; and requests to them."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import torch

from raystack.checkpoint.model import ModelSpec, write_spec
from raystack.checkpoint.weights import write_weights
from raystack.code.archive import pack
from raystack.task import Signature, TensorSpec

CODE = '''
import random, time
import torch
from torch import nn
from raystack.task import Signature, TensorSpec

class Rolled:
    """Answers the sum of x, if all is well."""
    signature = Signature((TensorSpec("x", "float32", (-1, 2)),), (TensorSpec("sum", "float32", (-1,)),))
    def __init__(self, fails=0.0, slow_s=0.0, wrong=0.0):
        self.fails, self.slow_s, self.wrong = fails, slow_s, wrong
    def model(self): return nn.Linear(2, 1)
    def train_data(self): return []
    def eval_data(self): return None
    def loss(self, model, batch): raise NotImplementedError
    def metrics(self, model, batch): return {}
    def predict(self, model, inputs):
        x = inputs["x"]
        if x.abs().sum() == 0:  # what checks the model, and warms it up
            return {"sum": x.sum(1)}
        if random.random() < self.fails:
            raise RuntimeError("a bad version")
        time.sleep(self.slow_s)
        return {"sum": x.sum(1) + (1.0 if random.random() < self.wrong else 0.0)}
'''
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}


def write(folder: Path, step: int, **faults: float) -> str:
    """Write a version, and return its folder."""
    code, files = folder / "code", folder / "model"
    code.mkdir(parents=True)
    files.mkdir()
    (code / "rolled_task.py").write_text(CODE, encoding="utf-8")
    signature = Signature((TensorSpec("x", "float32", (-1, 2)),), (TensorSpec("sum", "float32", (-1,)),))
    card = ModelSpec("rolled_task:Rolled", faults, signature, run_id=f"rolled-{step}", step=step, metrics={})
    write_spec(files, card, pack(code))
    write_weights(files, torch.nn.Linear(2, 1).state_dict())
    return str(folder)


@contextmanager
def load(url: str, connections: int = 4) -> Iterator[Counter[str]]:
    """Send requests for the time of the block; yield the answers by version, or by what went wrong."""
    seen: Counter[str] = Counter()
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=60) as client:
            while not over.wait(0.01):
                try:
                    answer = client.post(f"{url}/infer", json=BODY)
                except httpx.HTTPError as error:
                    seen[repr(error)] += 1
                    continue
                right = answer.status_code == 200
                seen[f"version {answer.json()['model_version']}" if right else answer.text] += 1

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
