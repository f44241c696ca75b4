"""What a command prints and how it ends: results on stdout, one line per problem on stderr, no traceback."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from warm import Warm

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
DIGITS = "examples/01_digits/config.yaml"
TINY = "tests/tiny/config.yaml"
AUTOMATED = ("tracking=local", "registry.model=m", "registry.alias=a", "+automation.then=promote")


Raystack = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def raystack(warm: Warm) -> Raystack:
    """The command, as it is typed."""
    return partial(warm.run, "raystack")


def test_a_dry_run_prints_the_plan_that_is_executed(raystack: Raystack) -> None:
    done = raystack("train", DIGITS, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["batches"] == [
        {"global_": 64, "micro": 32, "accumulation": 1, "workers": 2, "tokens": None}
    ]
    assert "64 = 32 micro x 1 accumulation x 2 worker(s)" in raystack("train", DIGITS, "--dry-run").stdout
    assert "/v2/models/digits" in raystack("serve", DIGITS, "--dry-run").stdout


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (
            ["train", DIGITS, "training.epocs=3"],
            2,
            "error: override 'training.epocs=3': training.epocs: unknown key (got 3); did you mean 'epochs'?",
        ),
        (
            ["train", "examples/01_digits/confg.yaml"],
            2,
            "error: examples/01_digits/confg.yaml: there is no such config file; did you mean",
        ),
        (
            ["train", DIGITS, "resources.workers=3"],
            3,
            "error: training.batch: global has to be a multiple of 3 workers (got global 64); nearest:",
        ),
        (["train", TINY, "task.entry=task:Tinny"], 2, "error: task.entry: there is no 'Tinny' in"),
        (
            ["train", TINY, "task.args.length=0"],
            2,
            "error: task: train_data: a dataset has at least one sample (got length 0)",
        ),
        (["train", TINY, "task.args.nan_at=3"], 5, "error: step 3: the loss is not a finite number"),
        (["train", TINY, "--run", "tiny-none"], 4, "error: --run: there is no such run of 'tiny'"),
        (
            ["train", TINY, "resources.workers=1", "target.address=127.0.0.1:9"],
            4,
            "error: target.address: no Ray cluster answers there:",
        ),
        (
            ["train", TINY, "--wait"],
            2,
            "error: --wait: a run on this machine ends with its command; drop it, or set target=job",
        ),
        (
            ["render", TINY],
            2,
            "error: target: only what runs on Kubernetes has manifests (got local); add target=kuberay",
        ),
        (["automate", TINY], 2, "error: automation: the config has no such section; add it, with automation"),
        (
            ["automate", TINY, *AUTOMATED, "+automation.triggers.schedule=0 25 * * *"],
            3,
            "error: automation.triggers.schedule: the hour should be 0 to 23, a range, a step or *, and is",
        ),
        (["status", "digits"], 2, "error: name: should be KIND/NAME (got digits); write rayjob/digits"),
        (["status", "job/none", "--address", "http://127.0.0.1:9"], 4, "error: "),
        (["train", TINY, "target=job", "target.address=http://127.0.0.1:9"], 4, "error: target.address:"),
        (["serve", DIGITS, "target=job"], 3, "error: target: a job ends, and a served model stays (got job)"),
        (["predict", TINY, "--out", "x"], 2, "error: --in: is missing; add --in data.parquet"),
        (
            ["predict", TINY, "--model", "/m", "--in", "/no.csv", "--out", "/x"],
            2,
            "error: --in /no.csv: there",
        ),
        (
            ["predict", TINY, "--in", TINY, "--out", "x"],
            3,
            "error: serving.model: there is no model to serve",
        ),
        (["lint", "nowhere.yaml"], 2, "error: nowhere.yaml: "),
        (["doctor", "--kubeconfig", "nowhere"], 4, "error: "),
        (
            ["serve", DIGITS, "serving.model=/nowhere", "--detach"],
            4,
            "error: --detach: a Ray cluster has to be running",
        ),
    ],
)
def test_an_error_is_one_line_and_a_status(
    arguments: list[str], status: int, line: str, raystack: Raystack
) -> None:
    done = raystack(*arguments)
    errors = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert done.returncode == status, done.stderr
    assert len(errors) == 1
    assert errors[0].startswith(line)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_run_says_where_everything_is_and_its_config_runs_again(raystack: Raystack) -> None:
    done = raystack("train", TINY, "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    folder = Path(outcome["checkpoint"]).parents[1]
    assert outcome["step"] == 6
    assert "Traceback" not in done.stderr
    assert "INFO" not in done.stderr
    again = json.loads(raystack("train", str(folder / "config.yaml"), "--json").stdout)
    assert again["metrics"] == outcome["metrics"]
    resumed = raystack("train", TINY, "training.epochs=3", "--resume", "--run", outcome["run_id"], "--json")
    assert json.loads(resumed.stdout)["step"] == 9


def test_a_reader_that_has_gone_ends_it_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)  # as `head` does when it has read enough
    command = [sys.executable, "-m", "raystack", "train", DIGITS, "--dry-run"]
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_output_that_cannot_be_written_is_one_line() -> None:
    command = [sys.executable, "-m", "raystack", "train", DIGITS, "--dry-run"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (4, "error: stdout: No space left on device\n")
