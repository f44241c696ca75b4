"""What raystack registers is a model of MLflow's own: it is loaded, served and evaluated as any other."""

# mypy: disable-error-code="no-untyped-call"
# Parts of MLflow have no annotations.

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from mlflow.models import Model

from raystack.checkpoint import ModelSpec, write_spec
from raystack.checkpoint.checksums import write_checksums
from raystack.checkpoint.example import write_example
from raystack.checkpoint.manifest import describe_files
from raystack.checkpoint.weights import write_weights
from raystack.code.archive import pack
from raystack.config import load
from raystack.errors import ServingError
from raystack.plan import plan_training
from raystack.registry import MlflowTracker
from raystack.serving.predictor import Predictor
from raystack.task import Signature, TensorSpec

# MLflow warns of its own annotations when its pyfunc module is imported, and of what it will change.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:FutureWarning:mlflow"),
]

CONFIG = Path(__file__).parents[2] / "tiny" / "config.yaml"
CODE = """
import torch
from torch import nn
from raystack.task import Signature, TensorSpec

class Sides:
    \"\"\"On which side of a line a point lies, and how surely unless only the side is asked for.\"\"\"
    def __init__(self, sure=True): self.sure = sure
    @property
    def signature(self):
        outputs = (TensorSpec("side", "int64", (-1,)), TensorSpec("chance", "float32", (-1, 2)))
        return Signature((TensorSpec("point", "float32", (-1, 3)),), outputs if self.sure else outputs[:1])
    def model(self): return nn.Linear(3, 2)
    def train_data(self): return []
    def eval_data(self): return None
    def loss(self, model, batch): raise NotImplementedError
    def metrics(self, model, batch): return {}
    def predict(self, model, inputs):
        chance = model(inputs["point"]).softmax(1)
        outputs = {"side": chance.argmax(1), "chance": chance}
        return outputs if self.sure else {"side": outputs["side"]}
"""
POINTS = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)


def register(folder: Path, name: str, *, sure: bool) -> None:
    """Train nothing, and register the model as a run does."""
    code, files = folder / f"{name}-code", folder / name / "model"
    code.mkdir()
    files.mkdir(parents=True)
    (code / "sides_task.py").write_text(CODE, encoding="utf-8")
    outputs = (TensorSpec("side", "int64", (-1,)), TensorSpec("chance", "float32", (-1, 2)))
    signature = Signature((TensorSpec("point", "float32", (-1, 3)),), outputs if sure else outputs[:1])
    spec = ModelSpec("sides_task:Sides", {"sure": sure}, signature, f"{name}-1", 12, {})
    write_spec(files, spec, pack(code))
    torch.manual_seed(0)
    write_weights(files, torch.nn.Linear(3, 2).state_dict())
    if sure:
        write_example(files, {"point": POINTS[:1]})
    write_checksums(files, describe_files(files))
    overrides = [f"experiment.storage={folder}", "tracking={kind: mlflow, system_metrics: false}"]
    tracker = MlflowTracker(
        plan_training(load(CONFIG, [*overrides, f"registry={{model: {name}, alias: champion}}"]), f"{name}-1")
    )
    tracker.start()
    registered = tracker.register(files, spec)
    tracker.finish("FINISHED")
    assert tracker.notes == ()
    assert registered is not None


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[str]:
    """A registry with `sides`, of two outputs, and `side`, of one: MLflow's default one in this file."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_store, folder / "mlflow.db")
    register(folder, "sides", sure=True)
    register(folder, "side", sure=False)
    uri = f"sqlite:///{folder}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        yield uri


def test_load_model_answers_as_raystack_s_own_predictor_does(store: str) -> None:
    own = Predictor.load("models:/sides@champion", store).predict({"point": POINTS})
    model = mlflow.pyfunc.load_model("models:/sides@champion")
    column = pd.DataFrame({"point": list(POINTS)})
    for given in ({"point": POINTS}, POINTS, column):
        answer = model.predict(given)
        assert answer.keys() == own.keys() == {"side", "chance"}
        for name, values in own.items():
            np.testing.assert_array_equal(answer[name], values)


def test_one_output_is_answered_as_an_array(store: str) -> None:
    own = Predictor.load("models:/side/1", store).predict({"point": POINTS})
    np.testing.assert_array_equal(mlflow.pyfunc.load_model("models:/side/1").predict(POINTS), own["side"])


def test_a_wrong_input_is_refused_by_the_signature(store: str) -> None:
    with pytest.raises(mlflow.MlflowException, match=r"does not match expected shape \(-1, 3\)"):
        mlflow.pyfunc.load_model("models:/sides/1").predict({"point": POINTS[:, :2]})


def test_a_version_with_a_flipped_bit_is_refused(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    register(tmp_path, "flipped", sure=False)
    (weights,) = (tmp_path / "mlflow").rglob("model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-3] ^= 0x40
    weights.write_bytes(content)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(ServingError, match=r"model\.safetensors: the SHA-256 of this file"):
        Predictor.load("models:/flipped/1", uri)
    with pytest.raises(ServingError, match=r"model\.safetensors: the SHA-256 of this file"):
        mlflow.pyfunc.load_model(str(weights.parent))


def test_the_version_carries_what_mlflow_s_pages_and_tools_read(store: str) -> None:
    info = mlflow.models.get_model_info("models:/sides@champion")
    assert {"python_function", "raystack"} <= info.flavors.keys()
    assert info.flavors["python_function"]["loader_module"] == "raystack.serving.pyfunc"
    assert info.signature.inputs.to_dict()[0]["name"] == "point"
    assert [output["name"] for output in info.signature.outputs.to_dict()] == ["side", "chance"]
    folder = Path(mlflow.artifacts.download_artifacts("models:/sides@champion"))
    assert yaml.safe_load((folder / "MLmodel").read_text())["model_size_bytes"] > 0
    required = [line.partition("==")[0] for line in (folder / "requirements.txt").read_text().splitlines()]
    assert required == ["mlflow", "raystack-ml", "torch"]
    environment = yaml.safe_load((folder / "python_env.yaml").read_text())
    assert environment["dependencies"] == ["-r requirements.txt"]
    assert not list(folder.rglob("*.pkl")), "nothing is unpickled"


def test_the_input_example_is_a_real_sample_or_zeros(store: str) -> None:
    for name, sample in (("sides", POINTS[:1]), ("side", np.zeros((1, 3), np.float32))):
        folder = mlflow.artifacts.download_artifacts(f"models:/{name}@champion")
        model = Model.load(folder)
        example: Any = model.load_input_example(folder)
        np.testing.assert_allclose(example["point"], sample, rtol=1e-6)
        body = json.loads(Path(folder, "serving_input_example.json").read_text())
        np.testing.assert_allclose(body["inputs"]["point"], sample, rtol=1e-6)
        assert mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(example) is not None


def test_one_of_several_outputs_may_be_chosen(store: str) -> None:
    own = Predictor.load("models:/sides/1", store).predict({"point": POINTS})
    model = mlflow.pyfunc.load_model("models:/sides/1", model_config={"output": "chance"})
    np.testing.assert_array_equal(model.predict(POINTS), own["chance"])
    with pytest.raises(ServingError, match=r"outputs 'side', 'chance' \(got chanse\); did you mean 'chance'"):
        mlflow.pyfunc.load_model("models:/sides/1", model_config={"output": "chanse"})


@pytest.mark.usefixtures("store")
@pytest.mark.filterwarnings("ignore")  # its evaluator uses what pandas has deprecated
@pytest.mark.parametrize(
    ("uri", "model_config"), [("models:/side@champion", None), ("models:/sides@champion", {"output": "side"})]
)
def test_mlflow_evaluates_it(uri: str, model_config: dict[str, str] | None, tmp_path: Path) -> None:
    # MLflow's default experiment keeps its artifacts below the working directory.
    mlflow.set_experiment(experiment_id=mlflow.create_experiment(tmp_path.name, tmp_path.as_uri()))
    sides = mlflow.pyfunc.load_model("models:/side@champion").predict(POINTS)
    target = sides.copy()
    target[:16] = 1 - target[:16]
    data = pd.DataFrame({"point": list(POINTS), "side": target})
    result = mlflow.models.evaluate(
        uri,
        data,
        targets="side",
        model_type="classifier",
        model_config=model_config,
        evaluator_config={"log_model_explainability": False, "log_explainer": False},
    )
    assert result.metrics["accuracy_score"] == pytest.approx(48 / 64)


@contextmanager
def served(uri: str, store: str, log: Path) -> Iterator[str]:
    """`mlflow models serve` for the time of the block; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*words, "--port", str(port), "--host", "127.0.0.1"],
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "MLFLOW_TRACKING_URI": store, "MLFLOW_DISABLE_TELEMETRY": "true"},
        )
    try:
        deadline = time.monotonic() + 120
        while not _answers(f"http://127.0.0.1:{port}/ping"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        _stop(process)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """The whole group: MLflow's workers are children of its children."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue


@pytest.mark.slow
def test_mlflow_serves_it(store: str, tmp_path: Path) -> None:
    own = Predictor.load("models:/sides@champion", store).predict({"point": POINTS[:5]})
    example = Path(
        mlflow.artifacts.download_artifacts("models:/sides@champion"), "serving_input_example.json"
    )
    with served("models:/sides@champion", store, tmp_path / "log") as address:
        for body, rows in (
            (json.dumps({"inputs": {"point": POINTS[:5].tolist()}}), 5),
            (example.read_text(), 1),
        ):
            request = urllib.request.Request(
                f"{address}/invocations", body.encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                predictions = json.load(answer)["predictions"]
            assert predictions["side"] == own["side"][:rows].tolist()
            np.testing.assert_allclose(predictions["chance"], own["chance"][:rows], rtol=1e-6)
