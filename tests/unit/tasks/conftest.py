"""A tiny Llama, its tokenizer, and conversations of different lengths, made by the example's own program."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "03_fine_tune_language_model" / "make_model.py"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with model/, train.jsonl (38 conversations) and eval.jsonl (2)."""
    spec = importlib.util.spec_from_file_location("make_model", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    folder = tmp_path_factory.mktemp("made")
    pairs = [
        (f"What does f{index} do?", "Return " + "the value of it " * (index % 7 + 1)) for index in range(40)
    ]
    program.make(folder, pairs, width=16, depth=2)
    return folder
