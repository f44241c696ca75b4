"""When a run evaluates and saves in epochs, and how it ends before its last step: the same under every
strategy, on one worker and on two, and in a run that goes on on another number of them.
"""

from pathlib import Path
from typing import Any

import pytest
from measured_workers import Stages, Told, planned, trained

from raystack.checkpoint import CheckpointStore
from raystack.checkpoint.manifest import Manifest

pytestmark = pytest.mark.slow
STRATEGIES = ("ddp", "fsdp", "zero1", "zero2", "zero3")
EVERY = "training.evaluate.every_steps=1"
EARLY = [EVERY, "training.early_stopping={metric: eval/left, mode: min, patience: 2}"]
TIME = "training.max_time_s=1.0e-6"
IN_EPOCHS = ["training.evaluate.every_epochs=0.3", "training.checkpoint.every_epochs=0.6"]


def cases(names: list[str], overrides: list[str]) -> dict[str, list[str]]:
    return {name: [f"strategy={name.split()[0]}", *overrides] for name in names}


def each(what: str) -> list[str]:
    return [f"{strategy} {what}" for strategy in STRATEGIES]


def on(names: list[str], workers: int) -> list[str]:
    return [f"{name} > on {workers}" for name in names]


STAGES: Stages = [
    (
        2,
        {
            **cases(each("early"), EARLY),
            **cases(each("halted"), [*EARLY, "stop_at=4"]),
            **cases(each("time"), [TIME]),
            **cases(each("epochs"), IN_EPOCHS),
            **cases(["ddp broken"], [*EARLY, "training.checkpoint.every_steps=2", "task.args.fails_at=4"]),
        },
    ),
    (
        1,
        {
            **cases(on(each("early"), 1), EARLY),
            **cases(on(each("halted"), 1), EARLY),
            **cases(on(each("time"), 1), [TIME]),
            **cases(["ddp one"], [*EARLY, "stop_at=4"]),
            **cases(["ddp broken > on 1"], EARLY),
            **cases(["ddp alone"], IN_EPOCHS),
            **cases(["ddp patient"], [*EARLY, "training.early_stopping.min_change=0.9"]),
            **cases(["ddp impatient"], [*EARLY, "training.early_stopping.min_change=2.0"]),
        },
    ),
    (
        2,
        {
            **cases(["ddp one > on 2"], EARLY),
            **cases(["ddp early > longer"], [*EARLY, "training.early_stopping.patience=4"]),
            **cases(["ddp time > longer"], ["training.max_time_s=1000"]),
        },
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ending")


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Told]:
    return trained(folder, STAGES)


def manifests(folder: Path, case: str) -> dict[int, Manifest]:
    store = CheckpointStore(planned(folder, case, 1, []).paths.checkpoints)
    return {each.step: each for each in store.manifests()}


def steps(case: Told) -> list[int]:
    return [int(step) for step in case["steps"]]


REASON = "ended early: eval/left got no better in 2 evaluations, best 0 at step 3"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_that_gets_no_better_is_finished(told: dict[str, Told], folder: Path, strategy: str) -> None:
    case = told[f"{strategy} early"]
    assert steps(case) == [1, 2, 3, 4, 5]
    assert [metrics["eval/left"] for _, _, metrics in case["evaluations"]] == [2, 1, 0, 0, 0]
    assert (case["step"], case["chosen"], case["reason"]) == (5, 5, REASON)
    assert case["ended"] == [5, REASON]
    assert manifests(folder, f"{strategy} early")[5].metrics["eval/left"] == 0


@pytest.mark.parametrize("name", [*on(each("early"), 1)])
def test_a_run_that_has_ended_early_is_finished_and_says_so(told: dict[str, Told], name: str) -> None:
    case = told[name]
    assert (steps(case), case["evaluations"], case["ended"], case["step"]) == ([], [], [5, REASON], 5)


@pytest.mark.parametrize("name", [*on(each("halted"), 1), "ddp one > on 2"])
def test_patience_goes_on_on_another_number_of_workers(told: dict[str, Told], name: str) -> None:
    assert steps(told[name.partition(" > ")[0]])[-1] == 4
    assert steps(told[name]) == [5]
    assert told[name]["ended"] == [5, REASON]


def test_a_run_whose_evaluation_was_cut_off_goes_on_with_it(told: dict[str, Told]) -> None:
    assert (
        "the evaluation after step 4, rank 0: ValueError: no more file handles" in told["ddp broken"]["error"]
    )
    case = told["ddp broken > on 1"]
    assert [step for step, _, _ in case["evaluations"]] == [4, 5]
    assert (steps(case), case["ended"]) == ([5], [5, REASON])


def test_more_patience_lets_a_run_go_on(told: dict[str, Told]) -> None:
    case = told["ddp early > longer"]
    assert steps(case) == [6, 7]
    assert case["reason"] == REASON.replace("2 evaluations", "4 evaluations")


def test_a_change_that_is_too_small_is_none(told: dict[str, Told]) -> None:
    assert told["ddp patient"]["step"] == 5
    case = told["ddp impatient"]
    assert case["step"] == 3
    assert "got no better by more than 2 in 2 evaluations, best 2 at step 1" in case["reason"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_whose_time_is_over_is_finished(told: dict[str, Told], folder: Path, strategy: str) -> None:
    reason = "ended early: training.max_time_s=1e-06 is over"
    case, again = told[f"{strategy} time"], told[f"{strategy} time > on 1"]
    assert (steps(case), case["step"], case["reason"]) == ([1], 1, reason)
    assert [step for step, _, _ in case["evaluations"]] == [1]
    assert manifests(folder, f"{strategy} time")[1].elapsed_s > 0
    assert (steps(again), again["evaluations"], again["ended"]) == ([], [], [1, reason])


def test_more_time_lets_a_run_go_on(told: dict[str, Told], folder: Path) -> None:
    case = told["ddp time > longer"]
    assert (steps(case), case["reason"]) == ([*range(2, 13)], None)


@pytest.mark.parametrize("name", [*each("epochs"), "ddp alone"])
def test_an_interval_in_epochs_ends_at_the_first_step_after_it(told: dict[str, Told], name: str) -> None:
    # Four steps are an epoch: 0.3 epochs are over at 1.2, 2.4, 3.6, 4.8, 6, 7.2, 8.4, 9.6, 10.8 and 12 steps.
    case: Any = told[name]
    reports = [(step, number) for step, number, _ in case["evaluations"]]
    assert reports == [(step, number + 1) for number, step in enumerate([2, 3, 4, 5, 6, 8, 9, 10, 11, 12])]
    assert case["saved"] == [3, 5, 8, 10, 12]
