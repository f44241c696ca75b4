"""Every command in the README, the docs and the examples' pages does what it says, shortened but otherwise as written."""

import json
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from pages import ROOT, commands, on_kubernetes

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SMALL_GPT = ["training.steps=2", "task.args={width: 24, depth: 1, heads: 2, megabytes: 0.2}", "~training.schedule"]
SHORT = {
    "01_digits": ["training.epochs=1"],
    "02_language_model": SMALL_GPT,
    "03_fine_tune_language_model": ["training.epochs=null", "training.steps=2", "~training.schedule"],
    "04_zero3": SMALL_GPT,
}
ELSEWHERE = ("make ", "source ", "export ", "ray start", "pip ", "helm ", "docker ")
"""Commands that are run otherwise: by whoever runs these tests, by continuous integration, by the fixture, by nobody without a cluster."""
RUN = "~/raystack/runs/RUN"
"""How the pages write the folder of the reader's run."""


def shortened(command: str) -> list[str]:
    words = shlex.split(command)
    program = [sys.executable, *words[1:]] if words[0] == "python" else words
    example = re.search(r"examples/(\w+)/", command)
    if not example or "train" not in command:
        return program
    # What an example's page proposes to try needs no workers to be tried.
    variation = re.search(r" (task\.|training\.(optimizer|precision))", command)
    return [*program, *SHORT[example[1]], *(["resources=inline"] if variation else [])]


def environment(address: str) -> dict[str, str]:
    return {**os.environ, "RAY_ADDRESS": address, "RAY_AUTH_MODE": "token"}


TRAIN = [command for command in commands() if command.startswith("python -m raystack.train") and "epocs" not in command]
SUBMIT = [command for command in commands() if command.startswith("raystack train") and "target=job" in command]
CHECKPOINT = [command for command in commands() if command.startswith("raystack checkpoint")]


@pytest.fixture(scope="module")
def tiny_llama(storage: Path) -> Path:
    """What the third example fine-tunes, made as its page says."""
    (command,) = [command for command in commands() if "make_model" in command]
    subprocess.run(shortened(command), cwd=ROOT, check=True, capture_output=True, timeout=100)
    return storage / "docstrings"


@pytest.fixture(scope="module")
def run_folder() -> str:
    """The folder of a short run of the first example."""
    words = [sys.executable, "-m", "raystack.train", "examples/01_digits/config.yaml", "training.epochs=1", "resources=inline", "--json"]
    done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True, timeout=100)
    return str(Path(json.loads(done.stdout)["checkpoint"]).parents[1])


@pytest.mark.parametrize("command", TRAIN)
def test_a_training_command_ends_with_where_everything_is(command: str, ray_cluster: str, tiny_llama: Path) -> None:
    done = subprocess.run(shortened(command), cwd=ROOT, env=environment(ray_cluster), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    if "--json" in command:
        assert json.loads(done.stdout)["run_id"]
    else:
        assert re.search(r"^run +\w", done.stdout, re.MULTILINE)
    if "--dry-run" not in command:
        assert re.search(r"^checkpoint +/.*/step-\d{10}$", done.stdout, re.MULTILINE)
        assert re.search(r"^version +models:/", done.stdout, re.MULTILINE)
        assert re.search(r"^mlflow +mlflow server", done.stdout, re.MULTILINE)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [command for command in CHECKPOINT if "s3://" not in command])
def test_a_checkpoint_command_tells_of_the_run_it_is_given(command: str, run_folder: str, tmp_path: Path) -> None:
    words = shlex.split(command.replace(RUN, run_folder).replace("/models/", f"{tmp_path}/"))
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    if "export" in words:
        assert Path(done.stdout.strip(), "model.safetensors").is_file()
    else:
        assert re.search(r"^\d+ +ok ", done.stdout, re.MULTILINE)


def test_a_job_on_the_cluster_is_recorded_like_a_run_started_here(ray_cluster: str, dashboard: str) -> None:
    (command,) = [command for command in commands() if command.startswith("ray job submit")]
    where = {**environment(ray_cluster), "RAY_API_SERVER_ADDRESS": dashboard}
    done = subprocess.run(shortened(command), cwd=ROOT, env=where, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    assert re.search(r"^alias +models:/digits@champion", done.stdout, re.MULTILINE)


def test_raystack_submits_a_job_and_waits_for_it(ray_cluster: str, dashboard: str) -> None:
    submitted, *others = SUBMIT
    assert {command.replace(" config.yaml", " examples/01_digits/config.yaml training.epochs=1") for command in others} == {submitted}
    where = {**environment(ray_cluster), "RAY_API_SERVER_ADDRESS": dashboard}
    done = subprocess.run(shortened(submitted), cwd=ROOT, env=where, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^job/digits-\S+ is succeeded", done.stdout, re.MULTILINE)
    assert re.search(r"^alias +models:/digits@champion", done.stderr, re.MULTILINE)


def test_what_was_registered_is_served_until_it_is_stopped(ray_cluster: str) -> None:
    (command,) = [command for command in commands() if command.startswith("python -m raystack.serve") and "examples/01" in command]
    words = [*shortened(command), "--json"]
    with subprocess.Popen(words, cwd=ROOT, env=environment(ray_cluster), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        try:
            outcome = json.loads("".join(lines))
            with urllib.request.urlopen(outcome["look"]["url"], timeout=10) as response:
                assert json.load(response)["versions"] == [outcome["model_version"].rpartition("/")[2]]
        finally:
            process.terminate()  # Ctrl-C is ignored by what a shell started in the background
        assert process.wait(60) == 0


def test_no_command_is_left_out() -> None:
    others = ("ray job submit", "python -m raystack.serve")
    run = {*TRAIN, *CHECKPOINT, *SUBMIT, *(command for command in commands() if command.startswith(others))}
    rest = {command for command in commands() if command not in run and "make_model" not in command and not on_kubernetes(command)}
    # tests/contract has the mistyped key and the schema, tests/unit/checkpoint the checkpoints in a bucket, tests/kube all of Kubernetes.
    known = ("python -m raystack schema", "python -m raystack.train examples/01_digits/config.yaml training.epocs=3", *ELSEWHERE)
    assert not [command for command in rest if not command.startswith(known)]
    assert {re.search(r"examples/(\w+)/", command)[1] for command in TRAIN if "examples/" in command} == set(SHORT)  # type: ignore[index]
