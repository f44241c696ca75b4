"""The commands of the pages that need no Ray: dry runs, variations of an example, and what there is to say of
checkpoints.
"""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pages import CHECKPOINT, ROOT, TRAIN, alone, check_trained, commands, shortened

README = set(commands([ROOT / "README.md"]))
RUN = "~/raystack/runs/RUN"
"""How the pages write the folder of the reader's run."""


@pytest.fixture(scope="module")
def run_folder() -> str:
    """The folder of a short run of the first example."""
    words = [
        sys.executable,
        "-m",
        "raystack.train",
        "examples/01_digits/config.yaml",
        "training.epochs=1",
        "resources=inline",
        "--json",
    ]
    done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True, timeout=100)
    return str(Path(json.loads(done.stdout)["checkpoint"]).parents[1])


@pytest.mark.parametrize(
    "command", [command for command in TRAIN if alone(command) and command not in README]
)
def test_a_training_command_ends_with_where_everything_is(command: str, tiny_llama: Path) -> None:
    done = subprocess.run(shortened(command), cwd=ROOT, capture_output=True, text=True, timeout=200)
    check_trained(command, done)


@pytest.mark.parametrize("command", [command for command in CHECKPOINT if "s3://" not in command])
def test_a_checkpoint_command_tells_of_the_run_it_is_given(
    command: str, run_folder: str, tmp_path: Path
) -> None:
    words = shlex.split(command.replace(RUN, run_folder).replace("/models/", f"{tmp_path}/"))
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    if "export" in words:
        assert Path(done.stdout.strip(), "model.safetensors").is_file()
    else:
        assert re.search(r"^\d+ +ok ", done.stdout, re.MULTILINE)
