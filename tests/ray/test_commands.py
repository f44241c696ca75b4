"""Every command in the README and in the examples' pages does what it says, shortened but otherwise as written."""

import json
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("examples/*/README.md"))]
SHORT = {
    "01_digits": ["training.epochs=1"],
    "02_language_model": ["training.steps=2", "task.args={width: 24, depth: 1, heads: 2, megabytes: 0.2}", "~training.schedule"],
}
ELSEWHERE = ("make ", "source ", "export ", "ray start", "pip ")
"""Commands that are run otherwise: by whoever runs these tests, by continuous integration, by the fixture."""


def commands() -> list[str]:
    """Lines of the pages' plain code blocks that are commands, without their comments."""
    blocks = [block for page in PAGES for block in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)]
    lines = [line.partition("  #")[0].strip() for language, block in blocks if not language for line in block.splitlines()]
    starts = ("python ", "ray ", "make", "source ", "export ", "raystack ", "pip ")
    return list(dict.fromkeys(line for line in lines if line.startswith(starts)))


def shortened(command: str) -> list[str]:
    words = shlex.split(command)
    program = [sys.executable, *words[1:]] if words[0] == "python" else words
    example = re.search(r"examples/(\w+)/", command)
    if not example or "raystack.train" not in command:
        return program
    # What an example's page proposes to try needs no workers to be tried.
    variation = re.search(r" (task\.|training\.(optimizer|precision))", command)
    return [*program, *SHORT[example[1]], *(["resources=inline"] if variation else [])]


def environment(address: str) -> dict[str, str]:
    return {**os.environ, "RAY_ADDRESS": address, "RAY_AUTH_MODE": "token"}


TRAIN = [command for command in commands() if command.startswith("python -m raystack.train") and "epocs" not in command]


@pytest.mark.parametrize("command", TRAIN)
def test_a_training_command_ends_with_where_everything_is(command: str, ray_cluster: str) -> None:
    done = subprocess.run(shortened(command), cwd=ROOT, env=environment(ray_cluster), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^run +\w", done.stdout, re.MULTILINE)
    if "--dry-run" not in command:
        assert re.search(r"^checkpoint +/.*/step-\d{10}$", done.stdout, re.MULTILINE)
        assert re.search(r"^version +models:/", done.stdout, re.MULTILINE)
        assert re.search(r"^mlflow +mlflow server", done.stdout, re.MULTILINE)
    assert "Traceback" not in done.stderr


def test_a_job_on_the_cluster_is_recorded_like_a_run_started_here(ray_cluster: str, dashboard: str) -> None:
    (command,) = [command for command in commands() if command.startswith("ray job submit")]
    where = {**environment(ray_cluster), "RAY_API_SERVER_ADDRESS": dashboard}
    done = subprocess.run(shortened(command), cwd=ROOT, env=where, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    assert re.search(r"^alias +models:/digits@champion", done.stdout, re.MULTILINE)


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
    run = [*TRAIN, *(command for command in commands() if command.startswith(("ray job submit", "python -m raystack.serve")))]
    rest = [command for command in commands() if command not in run and not command.startswith(ELSEWHERE)]
    assert rest == ["python -m raystack schema"] or rest == []
