"""What is written as JSON is JSON, whatever a metric is."""

import json
import math
from typing import Any, NoReturn

import pytest

from raystack.checkpoint.fence import Holder
from raystack.checkpoint.manifest import Manifest
from raystack.cli.terminal import Terminal
from raystack.outcome import Outcome
from raystack.runs.ending import Ending, succeeded
from raystack.strict_json import dumps, numbers, tagged, untagged


def strict(text: str) -> Any:
    def refuse(word: str) -> NoReturn:
        raise ValueError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_json_does_not_have_are_null() -> None:
    value = {"a": math.nan, "b": [math.inf, 1.5, (2, -math.inf)], "c": {"d": math.nan, "e": "NaN"}}
    assert strict(dumps(value)) == {"a": None, "b": [None, 1.5, [2, None]], "c": {"d": None, "e": "NaN"}}
    back = numbers(strict(dumps({"loss": 0.5, "mse": math.nan})))
    assert back["loss"] == 0.5
    assert math.isnan(back["mse"])


def test_arguments_of_a_task_read_back_as_they_were() -> None:
    args = {"clip": math.inf, "floor": [-math.inf, 1.5, {"lr": 0.1}], "name": "inf", "none": None}
    assert untagged(strict(dumps(tagged(args)))) == args
    assert math.isnan(untagged(strict(dumps(tagged({"x": math.nan}))))["x"])


def test_a_manifest_with_a_metric_that_is_nan_is_json_and_reads_back() -> None:
    metrics = {"eval/mse": math.nan, "eval/loss": 0.5}
    text = Manifest("run", 4, 8, 8, 0, 2, 1, "ddp", metrics=metrics).to_json()
    assert strict(text)["metrics"] == {"eval/mse": None, "eval/loss": 0.5}
    back = Manifest.from_json(text).metrics
    assert math.isnan(back["eval/mse"])
    assert back["eval/loss"] == 0.5


def test_an_outcome_with_a_metric_that_is_nan_is_json_in_its_file_and_on_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcome = Outcome(run_id="run", step=4, metrics={"eval/mse": math.nan, "eval/loss": 0.5})
    text = succeeded(outcome, Holder(1, "token", "here", 7)).as_json()
    assert strict(text)["metrics"] == {"eval/mse": None, "eval/loss": 0.5}
    assert math.isnan(Ending.from_json(text).outcome.metrics["eval/mse"])
    Terminal(as_json=True).outcome(outcome)
    assert strict(capsys.readouterr().out)["metrics"] == {"eval/mse": None, "eval/loss": 0.5}
