"""A model folder becomes a predictor, or one reason why not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from raystack.errors import ServingError
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
    with pytest.raises(ServingError, match=r"model\.json"):
        Predictor.load(tmp_path)
