"""The Python API where Ray takes part: a notebook, a job that was submitted, and a model that is served."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
from driver import TINY
from nbclient import NotebookClient
from started import Started, started

from raystack import Experiment

pytestmark = [pytest.mark.ray, pytest.mark.slow]
DIGITS = Path(__file__).parents[2] / "examples" / "01_digits"


def test_the_notebook_plans_trains_predicts_and_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSTACK_STORAGE", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    text = (DIGITS / "notebook.ipynb").read_text()
    notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(DIGITS)}}).execute()
    shown = ["".join(_texts(cell)) for cell in notebook.cells if cell.cell_type == "code"]
    assert re.search("strategy +ddp", shown[0])
    assert "'eval/accuracy': 0.9" in shown[1]
    assert shown[2].strip() == "('models:/digits/1', 'models:/digits@champion')"
    assert "predicted [0 1 2 3 4] labels [0 1 2 3 4]" in shown[3]
    assert "predicted [0 1 2 3 4]" in shown[4]


def _texts(cell: nbformat.NotebookNode) -> Iterator[str]:
    for output in cell.outputs:
        yield output.get("text", "") or output.get("data", {}).get("text/plain", "")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Started]:
    with started() as it:
        yield it


def test_a_submitted_run_is_followed_to_its_outcome(
    cluster: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cluster.environment.items():
        if name.startswith("RAY_"):
            monkeypatch.setenv(name, value)
    submission = Experiment(
        TINY, "target=job", f"target.address={cluster.dashboard}", f"experiment.storage={tmp_path}"
    ).submit()
    assert submission.reference.startswith("job/tiny-")
    outcome = submission.outcome(timeout_s=120)
    assert outcome.step == 6
    assert submission.status().phase == "succeeded"
    assert any(line.text.startswith("step 6") for line in submission.logs())


def test_a_served_model_answers_with_arrays(dashboard: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    experiment = Experiment(TINY, f"experiment.storage={tmp_path}", f"serving.port={port}")
    outcome = experiment.train(on_event=lambda event: None)
    with experiment.override(f"serving.model={outcome.checkpoint}").serve() as model:
        outputs = model.predict({"x": np.zeros((2, 4))})
    assert {name: array.shape[0] for name, array in outputs.items()} == {"y": 2}
