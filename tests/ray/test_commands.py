"""Every command in the README, the docs and the examples' pages does what it says, shortened but otherwise as written.

Here are those that train on workers; tests/contract has the others, and tests/kube what is said to Kubernetes.
"""

import json
import os
import re
import subprocess
import urllib.request
from pathlib import Path

import pytest
from pages import CHECKPOINT, ROOT, SHORT, SUBMIT, TRAIN, alone, check_trained, commands, on_kubernetes, shortened

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ELSEWHERE = ("make ", "source ", "export ", "ray start", "pip ", "helm ", "docker ")
"""Commands that are run otherwise: by whoever runs these tests, by continuous integration, by the fixture, by nobody without a cluster."""


def environment(address: str) -> dict[str, str]:
    return {**os.environ, "RAY_ADDRESS": address, "RAY_AUTH_MODE": "token"}


@pytest.mark.parametrize("command", [command for command in TRAIN if not alone(command)])
def test_a_training_command_ends_with_where_everything_is(command: str, ray_cluster: str, tiny_llama: Path) -> None:
    done = subprocess.run(shortened(command), cwd=ROOT, env=environment(ray_cluster), capture_output=True, text=True, timeout=200)
    check_trained(command, done)


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
