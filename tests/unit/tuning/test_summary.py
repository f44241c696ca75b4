"""What a study came to: its best, its counts and its reasons, as rows and as JSON."""

import json
import math

import pytest
from synthetic import SPACE, record, study

from raystack.tuning.page.parallel import parallel
from raystack.tuning.record import Report, Trial
from raystack.tuning.summary import as_json, best_trial, summary_rows, trial_rows


def reported(number: int, *metrics: dict[str, float], **given: object) -> Trial:
    reports = [
        Report(number=index + 1, step=20 * (index + 1), seconds=1.0, metrics=each, order=index)
        for index, each in enumerate(metrics)
    ]
    point = {"training.optimizer.lr": 0.01 * (number + 1)}
    return Trial.model_validate(
        {"number": number, "id": f"digits-{number}", "point": point, "status": "finished"} | given
    ).model_copy(update={"reports": reports})


def test_a_study_in_rows() -> None:
    plan = study()
    rows = summary_rows(plan, record(plan))
    assert rows[:3] == [
        ("study", "digits"),
        ("metric", "eval/accuracy (max)"),
        ("trials", "3 running, 9 finished, 12 pruned, 11 infeasible, 1 failed, 4 stopped"),
    ]
    found = dict(rows)
    assert found["infeasible"].startswith("11: training.batch: ")
    assert found["best"].startswith("trial 12: eval/accuracy 0.9596")
    assert found["task.args.width"] == "8 (was 16)"
    assert found["train"] == "python -m raystack.train /data/studies/digits/best.yaml"


def test_reasons_that_differ_in_numbers_alone_count_together() -> None:
    plan = study()
    trials = [
        reported(n, status="infeasible", reason=f"lr: should be below 1 (got {n}.5e-3)") for n in range(3)
    ]
    rows = summary_rows(plan, trials)
    assert [text for what, text in rows if what == "infeasible"] == ["3: lr: should be below 1 (got 0.5e-3)"]
    assert dict(rows)["best"].startswith("none")


def test_trials_are_listed_best_first_and_those_without_a_value_last() -> None:
    plan = study()
    rows = trial_rows(plan, record(plan), None)
    known = [float(row["eval/accuracy"]) for row in rows if row["eval/accuracy"] != "-"]
    assert known == sorted(known, reverse=True)
    assert len(rows) == 40
    assert {row["status"] for row in rows[len(known) :]} == {"infeasible", "failed"}
    assert len(trial_rows(plan, record(plan), 5)) == 5
    assert rows[0]["lr"]
    assert rows[0]["momentum"] == "0.6405"
    assert rows[0]["betas"] == "-"


def test_paths_with_the_same_end_and_one_called_as_a_column_are_told_apart() -> None:
    space = {
        "training.optimizer.lr": {"uniform": [0.1, 0.2]},
        "task.args.lr": {"uniform": [0.1, 0.2]},
        "task.args.steps": {"randint": [1, 9]},
    }
    (row,) = trial_rows(study(space=space), [reported(0, {"eval/accuracy": 0.5})], None)
    assert list(row)[-3:] == ["optimizer.lr", "args.lr", "task.args.steps"]
    assert row["steps"] == "20"


def test_null_is_a_value() -> None:
    plan = study(space={"training.clip_norm": {"choice": [None, 1.0]}, **SPACE})
    trials = [
        reported(0, {"eval/accuracy": 0.9}, point={"training.clip_norm": 1.0}),
        reported(1, {"eval/accuracy": 0.8}, point={"training.clip_norm": None}),
        reported(2, {"eval/accuracy": 0.7}, point={}),
    ]
    assert [row["clip_norm"] for row in trial_rows(plan, trials, None)] == ["1", "null", "-"]
    assert dict(summary_rows(plan, trials))["training.clip_norm"] == "1 (was null)"
    assert json.loads(as_json(plan, trials))["diff"] == {"training.clip_norm": {"base": None, "best": 1.0}}
    (axis, *_) = parallel(plan, trials)["axes"]
    assert [text for _, text in axis["ticks"]] == ["null", "1", "none"]


def test_of_several_objectives_the_best_is_on_the_front() -> None:
    plan = study(metric=["eval/accuracy", "eval/size"], mode=["max", "min"])
    trials = [
        reported(0, {"eval/accuracy": 0.9, "eval/size": 9.0}),
        reported(1, {"eval/accuracy": 0.9, "eval/size": 8.0}),
        reported(2, {"eval/accuracy": 0.5, "eval/size": 2.0}),
        reported(3, {"eval/accuracy": 0.4, "eval/size": 3.0}),
        reported(4, {"eval/accuracy": 0.99}),
    ]
    best = best_trial(plan, trials)
    assert best is not None
    assert best.number == 1
    front = [text for what, text in summary_rows(plan, trials) if what == "front"]
    assert [text.split(":")[0] for text in front] == ["trial 1", "trial 2"]
    assert json.loads(as_json(plan, trials))["front"] == [1, 2]
    assert [row["trial"] for row in trial_rows(plan, trials, None)] == ["1", "2", "4", "0", "3"]


@pytest.mark.parametrize("count", [0, 1, 40])
def test_json_is_strict(count: int) -> None:
    plan = study()
    trials = record(plan, count)
    trials += [reported(count, {"eval/accuracy": math.nan, "eval/size": math.inf})]
    text = as_json(plan, trials)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found = json.loads(text, parse_constant=refuse)
    assert sum(found["counts"].values()) == len(found["trials"]) == count + 1
    assert found["trials"][-1]["values"] == {"eval/accuracy": None}
    best = best_trial(plan, trials)
    assert found["best"] == (None if best is None else best.number)
