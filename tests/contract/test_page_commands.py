"""The commands of the pages that need no Ray: dry runs, variations of an example, and what there is to say of
checkpoints.
"""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from pages import CHECKPOINT, ROOT, TRAIN, alone, check_trained, commands, shortened
from warm import Warm

pytestmark = pytest.mark.slow
README = set(commands([ROOT / "README.md"]))
RUN = "~/raystack/runs/RUN"
"""How the pages write the folder of the reader's run."""


@pytest.fixture(scope="module")
def run_folder(warm: Warm) -> str:
    """The folder of a short run of the first example."""
    words = ["examples/01_digits/config.yaml", "training.epochs=1", "resources=inline", "--json"]
    done = warm.run("raystack.train", *words)
    assert done.returncode == 0, done.stderr
    return str(Path(json.loads(done.stdout)["checkpoint"]).parents[1])


@pytest.mark.parametrize(
    "command", [command for command in TRAIN if alone(command) and command not in README]
)
def test_a_training_command_ends_with_where_everything_is(
    command: str, warm: Warm, request: pytest.FixtureRequest
) -> None:
    if "03_fine_tune_language_model" in command:
        request.getfixturevalue("tiny_llama")
    program, module, *words = shortened(command)
    assert (program, module) == (sys.executable, "-m")
    done = warm.run(*words)
    check_trained(command, done)


@pytest.mark.parametrize("command", [command for command in CHECKPOINT if "s3://" not in command])
def test_a_checkpoint_command_tells_of_the_run_it_is_given(
    command: str, warm: Warm, run_folder: str, tmp_path: Path
) -> None:
    words = shlex.split(command.replace(RUN, run_folder).replace("/models/", f"{tmp_path}/"))
    done = warm.run(*words)
    assert done.returncode == 0, done.stderr
    if "export" in words:
        assert Path(done.stdout.strip(), "model.safetensors").is_file()
    else:
        assert re.search(r"^\d+ +ok ", done.stdout, re.MULTILINE)
