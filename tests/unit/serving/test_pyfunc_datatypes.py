"""MLflow's own loader takes texts as objects and bfloat16 as float32, as MLflow and pandas have them."""

# mypy: disable-error-code="no-untyped-call"
# Parts of MLflow have no annotations.

import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.models import Model

from raystack.checkpoint import ModelSpec, write_spec
from raystack.checkpoint.checksums import write_checksums
from raystack.checkpoint.example import write_example
from raystack.checkpoint.manifest import describe_files
from raystack.checkpoint.weights import write_weights
from raystack.code.archive import pack
from raystack.config import load
from raystack.plan import plan_training
from raystack.registry import MlflowTracker
from raystack.serving.predictor import Predictor
from raystack.task import Signature, TensorSpec

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:FutureWarning:mlflow"),
]

CONFIG = Path(__file__).parents[2] / "tiny" / "config.yaml"
CODE = """
import torch
from torch import nn
from raystack.task import Signature, TensorSpec

class Shout:
    inputs = (TensorSpec("text", "bytes", (-1,)), TensorSpec("half", "bfloat16", (-1, 2)))
    outputs = (TensorSpec("loud", "bytes", (-1,)), TensorSpec("twice", "bfloat16", (-1, 2)))
    signature = Signature(inputs, outputs)
    def model(self): return nn.Linear(1, 1)
    def train_data(self): return []
    def eval_data(self): return None
    def loss(self, model, batch): raise NotImplementedError
    def metrics(self, model, batch): return {}
    def predict(self, model, inputs):
        return {"loud": [text.decode().upper() for text in inputs["text"]], "twice": inputs["half"] * 2}
"""
INPUTS = (TensorSpec("text", "bytes", (-1,)), TensorSpec("half", "bfloat16", (-1, 2)))
OUTPUTS = (TensorSpec("loud", "bytes", (-1,)), TensorSpec("twice", "bfloat16", (-1, 2)))
TEXTS, HALVES = np.array(["grün", "b"], object), np.array([[0.5, 1], [2, 3]], np.float32)


@pytest.fixture(params=[True, False], ids=["sample", "no sample"])
def uri(
    request: pytest.FixtureRequest, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A registered model, with a sample of its inputs or without."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    code, files = tmp_path / "code", tmp_path / "run" / "model"
    code.mkdir()
    files.mkdir(parents=True)
    (code / "shout_task.py").write_text(CODE, encoding="utf-8")
    spec = ModelSpec("shout_task:Shout", {}, Signature(INPUTS, OUTPUTS), "shout-1", 12, {})
    write_spec(files, spec, pack(code))
    write_weights(files, torch.nn.Linear(1, 1).state_dict())
    if request.param:
        write_example(files, {"text": TEXTS[:1], "half": HALVES[:1]})
    write_checksums(files, describe_files(files))
    overrides = [f"experiment.storage={tmp_path}", "tracking={kind: mlflow, system_metrics: false}"]
    tracker = MlflowTracker(plan_training(load(CONFIG, [*overrides, "registry.model=shout"]), "shout-1"))
    tracker.start()
    registered = tracker.register(files, spec)
    tracker.finish("FINISHED")
    assert registered is not None, tracker.notes
    return "models:/shout/1"


def test_texts_and_bfloat16(uri: str) -> None:
    from mlflow.pyfunc.scoring_server import infer_and_parse_data  # warns when it is imported

    model: Any = mlflow.pyfunc.load_model(uri)
    body = {"inputs": {"text": TEXTS.tolist(), "half": HALVES.tolist()}}
    sent = infer_and_parse_data(json.loads(json.dumps(body)), model.metadata.get_input_schema())
    frame = pd.DataFrame({"text": TEXTS, "half": list(HALVES)})
    for given in ({"text": TEXTS, "half": HALVES}, frame, sent):
        answer = model.predict(given)
        assert answer["loud"].tolist() == ["GRÜN", "B"]
        assert (answer["twice"].dtype, answer["twice"].tolist()) == (np.float32, (HALVES * 2).tolist())
    own = Predictor.load(uri, mlflow.get_tracking_uri()).predict({"text": TEXTS, "half": HALVES})
    assert own["loud"].tolist() == ["GRÜN".encode(), b"B"]
    assert own["twice"].dtype.name == "bfloat16"


def test_the_input_example_is_what_the_model_takes(uri: str) -> None:
    folder = mlflow.artifacts.download_artifacts(uri)
    example: Any = Model.load(folder).load_input_example(folder)
    assert example["half"].dtype == np.float32
    mlflow.pyfunc.load_model(uri).predict(example)
    body = json.loads(Path(folder, "serving_input_example.json").read_text())
    assert body["inputs"]["text"] in ([""], ["grün"])
