"""Models and tasks out of the ordinary, on two workers: right, or refused before the first step."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("odd_workers.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("odd")
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=280
    )
    assert ran.returncode == 0, ran.stderr
    read: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return read


def test_before_an_evaluation_and_a_checkpoint_all_workers_have_worker_0s_buffers(
    results: dict[str, Any],
) -> None:
    first, second = results["buffers_of_worker_0"]
    assert first == second
    assert first["largest"] == 10.0
    assert first["norm.running_mean"] == "[1.0, 2.0]"
    assert first["norm.num_batches_tracked"] == "5"
    assert first["grown"] == "[0, 1, 2]"
    assert first["late"] == "[1.0, 1.0]"
    assert first["hidden"] == "True"
    assert first["kept"] == [], "a buffer that is not persistent stays so"


def test_workers_that_have_met_other_metrics_add_them_up_by_name(results: dict[str, Any]) -> None:
    assert results["metrics_by_name"] == {
        "eval/all": (0 + 6 + 7 + 3 + 6) / 5,
        "eval/class_0": 3.0,
        "eval/class_3": 4.5,
        "eval/class_7": 7.0,
    }
