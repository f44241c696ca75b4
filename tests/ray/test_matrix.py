"""Every example under every strategy in every place, as an ordinary user: a few steps, the best kept, a
resume, an export.

What was tried on one shape only was wrong on the others, so this is a table with no cell left out. A few
cells run in every run of the tests; `-m long` runs the rest.
"""

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache, partial
from itertools import product
from pathlib import Path

import pytest
from pages import ROOT, SHORT
from safetensors.torch import load_file
from started import ORDINARY, Started, started
from warm import Warm

pytestmark = [pytest.mark.ray, pytest.mark.slow]
EXAMPLES = {
    "01_digits": "eval/accuracy",
    "02_language_model": "eval/loss",
    "03_fine_tune_language_model": "eval/loss",
}
"""With a metric to keep the best by."""
STRATEGIES = ("ddp", "fsdp", "zero1", "zero2", "zero3")
PLACES = ("inline", "here", "cluster")
"""In the command's own process; on a Ray that it starts; on one that `ray start` made."""
ALWAYS = {
    ("01_digits", "fsdp", "inline"),
    ("01_digits", "zero2", "inline"),
    ("02_language_model", "fsdp", "cluster"),
}
SAVED, END = 4, 6
"""Steps until the first command ends, and the one that goes on."""

Losses = dict[int, float]
Cell = Callable[[str, str, str], tuple[Losses, Path]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Callable[[], Started]]:
    """Gives one, which starts when it is asked for."""
    with ExitStack() as stack:
        yield cache(lambda: stack.enter_context(started()))


@pytest.fixture(scope="module")
def cell(cluster: Callable[[], Started], storage: Path, warm: Warm) -> Cell:
    """Trains one; returns its losses by step, and the folder of the weights that it exported. Each is done
    once.
    """

    @cache
    def run(example: str, strategy: str, place: str) -> tuple[Losses, Path]:
        where = {"inline": "resources=inline", "here": "resources=cpu2"}
        if place == "cluster":
            where["cluster"] = f"target.address={cluster().address}"
        metric = EXAMPLES[example]
        best = f"{{metric: {metric}, mode: {'max' if metric.endswith('accuracy') else 'min'}}}"
        config = [
            f"strategy={strategy}",
            where[place],
            f"experiment.name={example[:2]}-{strategy}-{place}",
            *SHORT[example],
        ]
        config += [
            "training.evaluate.every_steps=2",
            f"training.checkpoint={{every_steps: 2, keep_last: 1, keep_best: {best}}}",
            "training.log_every_steps=1",
        ]
        environment = cluster().environment if place == "cluster" else dict(os.environ)
        train = ["raystack.train", f"examples/{example}/config.yaml", *config, "training.epochs=null"]
        command = warm.run if place == "inline" else partial(_command, environment)

        first = _printed(command(*train, f"training.steps={SAVED}"))
        second = _printed(command(*train, f"training.steps={END}", "--resume"))
        assert f"step-{SAVED:010d}" in first, first
        found = re.search(r"^run +([\w-]+)", second, re.MULTILINE)
        assert found is not None, second
        assert found[1] in first, "the same run goes on"
        assert f"from step {SAVED}" in second, second
        weights = storage / "exported" / found[1]
        folder = f"{storage}/runs/{found[1]}"
        _printed(warm.run("raystack", "checkpoint", "export", folder, "--out", str(weights)))
        return _losses(storage, found[1]), weights

    return run


def _command(environment: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    """`python -m` with these words."""
    command = [*ORDINARY, sys.executable, "-m", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150)


def _printed(done: "subprocess.CompletedProcess[str]") -> str:
    """What a command that went well has printed."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def _losses(storage: Path, run: str) -> Losses:
    """As MLflow has them."""
    with sqlite3.connect(f"file:{storage}/mlflow.db?mode=ro", uri=True) as store:
        rows = store.execute(
            "SELECT step, value FROM metrics JOIN runs USING (run_uuid) WHERE name = ? AND key = 'train/loss'"
            " ORDER BY step",
            (run,),
        ).fetchall()
    store.close()
    return dict(rows)


def _marks(one: tuple[str, str, str]) -> tuple[pytest.MarkDecorator, ...]:
    if one not in ALWAYS:
        return (pytest.mark.long,)
    return () if one[2] == "inline" else (pytest.mark.minutes,)


CELLS = [
    pytest.param(*one, marks=_marks(one), id="-".join((one[0][:2], *one[1:])))
    for one in product(EXAMPLES, STRATEGIES, PLACES)
]


@pytest.mark.parametrize(("example", "strategy", "place"), CELLS)
def test_an_example_trains_goes_on_and_is_exported(
    example: str, strategy: str, place: str, cell: Cell, request: pytest.FixtureRequest
) -> None:
    if example == "03_fine_tune_language_model":
        request.getfixturevalue("tiny_llama")
    losses, weights = cell(example, strategy, place)
    reference, expected = cell(example, "ddp", "inline" if place == "inline" else "cluster")
    assert list(losses) == list(range(1, END + 1))
    assert losses == pytest.approx(reference, rel=1e-5)
    mine, plain = load_file(weights / "model.safetensors"), load_file(expected / "model.safetensors")
    assert mine.keys() == plain.keys()
    for name, tensor in mine.items():
        assert (tensor - plain[name]).abs().max() < 1e-4, name
    if place != "inline":
        alone, _ = cell(example, "ddp", "inline")
        assert losses[1] == pytest.approx(alone[1], rel=1e-3), "but for dropout, on one worker as on two"
