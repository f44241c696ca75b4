"""A model folder becomes a predictor, or one reason why not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from raystack.errors import ConfigError, ServingError
from raystack.serving.predictor import Predictor

pytestmark = pytest.mark.usefixtures("threads")
Folder = Callable[..., Path]


def test_it_answers_as_the_weights_say(model_folder: Folder) -> None:
    predictor = Predictor.load(model_folder(), threads=1)
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    torch.manual_seed(0)
    expected = torch.nn.Linear(4, 1)(torch.from_numpy(x)).detach().numpy()
    outputs = predictor.predict({"x": x})
    np.testing.assert_allclose(outputs["y"], expected, rtol=1e-6)
    assert outputs["passes"].dtype == np.int64
    assert outputs["passes"].tolist() == [2, 2, 2], "the warm-up was the first pass"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_computes_in_it_and_answers_as_signed(model_folder: Folder, precision: str) -> None:
    folder, x = model_folder(), np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    exact = Predictor.read(folder).forward({"x": x})["y"]
    half = Predictor.read(folder, precision=precision).forward({"x": x})["y"]
    assert half.dtype == np.float32
    assert 0 < np.abs(half - exact).max() < 0.02


def test_without_blocks_the_whole_model_is_compiled(
    model_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    Predictor.read(model_folder(), compiled=True)
    assert [type(module).__name__ for module in compiled] == ["Linear"]


def test_a_read_only_array_is_accepted(model_folder: Folder) -> None:
    x = np.frombuffer(bytes(16), np.float32).reshape(1, 4)
    assert Predictor.load(model_folder()).predict({"x": x})["y"].shape == (1, 1)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("model", "the task raised while its model was built: RuntimeError: no such layer"),
        ("predict", "the task raised: ValueError: a bad sample; see demo_task.py:20"),
        ("dtype", "output 'y': the signature says float32 (got float64)"),
        ("shape", "output 'y': the signature says shape [-1, 1] for 1 samples (got shape [1])"),
        ("name", "the signature says a mapping with the outputs 'y', 'passes' (got 'z', 'passes')"),
        ("type", "output 'y': the signature says a tensor (got list)"),
    ],
)
def test_a_broken_task_fails_when_it_is_loaded(model_folder: Folder, broken: str, reason: str) -> None:
    with pytest.raises(ServingError) as raised:
        Predictor.load(model_folder(broken))
    assert reason in str(raised.value)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no model\.json in it"):
        Predictor.load(tmp_path)
    with pytest.raises(ServingError, match=r"model\.json"):
        Predictor.read(tmp_path)


@pytest.mark.parametrize(
    "x",
    [
        [[1, 2, 3, 4]],
        [(1, 2, 3.0, 4)],
        [np.arange(1, 5)],
        np.arange(1, 5).reshape(1, 4),
        torch.arange(1.0, 5).reshape(1, 4),
    ],
)
def test_lists_tensors_and_other_numbers_become_what_the_signature_says(
    model_folder: Folder, x: object
) -> None:
    predictor = Predictor.load(model_folder())
    as_signed = predictor.predict({"x": np.array([[1, 2, 3, 4]], np.float32)})
    np.testing.assert_array_equal(predictor.predict({"x": x})["y"], as_signed["y"])


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "inputs: the signature also has 'x' (got no inputs)"),
        ({"xx": [[0, 0, 0, 0]]}, "input 'xx': the signature has 'x'; did you mean 'x'?"),
        (
            {"x": [[0, 0, 0]]},
            "input 'x': the signature says shape [-1, 4], -1 for any size from 1 (got shape [1, 3])",
        ),
        (
            {"x": [0, 0, 0, 0]},
            "input 'x': the signature says shape [-1, 4], -1 for any size from 1 (got shape [4])",
        ),
        ({"x": np.zeros((0, 4))}, "input 'x': a batch has at least one sample (got shape [0, 4])"),
        ({"x": [["a", "b", "c", "d"]]}, "input 'x': data holds values that are not float32"),
        ({"x": [[1, 2.5, True, 4]]}, "input 'x': data holds values that are not float32"),
        ({"x": ((1, 2.5, True, 4),)}, "input 'x': data holds values that are not float32"),
        ({"x": np.ones((1, 4), bool)}, "input 'x': data holds values that are not float32"),
        ({"x": [[0, 0], [0]]}, "input 'x': lists should be nested evenly"),
        ({"x": [[1e300, 0, 0, 0]]}, "input 'x': data holds values beyond float32"),
    ],
)
def test_what_the_signature_does_not_take_is_one_error(
    model_folder: Folder, inputs: dict[str, object], says: str
) -> None:
    with pytest.raises(ServingError) as raised:
        Predictor.load(model_folder()).predict(inputs)
    assert str(raised.value) == says


def test_it_says_what_it_takes(model_folder: Folder) -> None:
    shown = repr(Predictor.load(model_folder()))
    assert shown == "Predictor('demo_task:Task', run demo-1, step 12; takes x float32[-1, 4])"


def test_without_a_tracking_uri_the_registry_is_that_of_the_default_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSTACK_STORAGE", str(tmp_path))
    with pytest.raises(ConfigError, match=f"there is no MLflow store at sqlite:///{tmp_path}/mlflow.db yet"):
        Predictor.load("models:/digits@champion")
    with pytest.raises(ConfigError, match=r"no MLflow store at sqlite:////elsewhere/mlflow\.db"):
        Predictor.load("models:/digits@champion", "sqlite:////elsewhere/mlflow.db")
    monkeypatch.setenv("RAYSTACK_STORAGE", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(ConfigError, match=f"sqlite:///{tmp_path}/home/raystack/mlflow.db"):
        Predictor.load("models:/digits@champion")
