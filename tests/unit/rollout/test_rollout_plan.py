"""What a rollout is decided to be, and what is refused before anything starts."""

from pathlib import Path
from typing import Any

import pytest
from pretended import NEW, OLD, TINY, Service, begun, control, plan, run

from raystack import config as configs
from raystack.config.rollout import Rollout
from raystack.errors import ConfigError, PlanError, RaystackError
from raystack.plan.rollout import plan_rollout, rollout_rows
from raystack.rollout.prometheus import number
from raystack.rollout.view import RolloutView, decision_row

AT = "target.address=127.0.0.1:1"
SEVERAL = "serving.models={one: {model: 'models:/a/1'}, two: {model: 'models:/b/1'}}"


def planned(*overrides: str, **rollout: Any) -> Any:
    config = configs.load(TINY, [AT, *overrides])
    section = Rollout.model_validate({"model": NEW, **rollout})
    return plan_rollout(config.model_copy(update={"rollout": section}))


def test_weights_versions_and_copies_are_those_of_the_step(tmp_path: Path) -> None:
    made = plan(tmp_path, difference={"rtol": 0.1})
    split = made.at(0.05).serving.split
    assert split is not None
    assert split.models == {NEW: 0.05}
    assert split.shadow is not None
    assert (split.shadow.model, split.shadow.rtol) == (NEW, 0.1)
    full = made.at(1.0).serving.split
    assert full is not None
    assert full.shadow is None  # there is no answer to compare a copy with
    assert made.at(None).serving.split is None
    assert (made.at(0.5).serving.model, made.promoted.serving.model) == (OLD, NEW)


def test_a_plan_is_the_same_when_its_config_was_written_and_read(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert plan_rollout(configs.loads(configs.dump(made.config))).at(0.5) == made.at(0.5)


def test_of_several_models_the_one_of_the_same_registered_model_is_meant() -> None:
    made = planned(SEVERAL, "tracking=local", model="models:/b@next")
    assert (made.name, made.stable) == ("two", "models:/b/1")
    split = made.at(0.5).serving.models["two"].split
    assert split is not None
    assert split.models == {"models:/b@next": 0.5}
    assert made.at(0.5).serving.models["one"].split is None


@pytest.mark.parametrize(
    ("overrides", "rollout", "line"),
    [
        ([f"serving.model={OLD}"], {"model": None}, "rollout.model: there is no version to roll out"),
        ([f"serving.model={OLD}"], {"steps": ()}, "rollout.steps: there is no step"),
        ([f"serving.model={OLD}"], {"alias": "champion"}, "rollout.alias: is MLflow's"),
        ([f"serving.model={OLD}"], {"name": "other"}, "rollout.name: is not the name of the model"),
        ([SEVERAL], {}, "rollout.name: several models are served"),
        (
            [f"serving.model={OLD}", "target.address=null"],
            {},
            "target.address: a rollout is on a Ray cluster",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    overrides: list[str], rollout: dict[str, Any], line: str
) -> None:
    with pytest.raises(PlanError) as refused:
        planned("tracking=local", *overrides, **rollout)
    assert str(refused.value).startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "{steps: [{weight: 0.5}, {weight: 0.1}]}",
            "rollout: should have steps whose weights do not go down",
        ),
        ("{steps: [{weight: 0.0}]}", "rollout: has nothing to see in step 1, of weight 0"),
        ("{analysis: {metrics: {a: {query: q, url: 'http://p'}}}}", "rollout.analysis.metrics.a"),
    ],
)
def test_a_section_that_contradicts_itself_is_refused(text: str, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        configs.load(TINY, [f"+rollout={text}"])
    assert line in str(refused.value)


def test_numbers_of_prometheus_are_read_and_others_are_refused() -> None:
    def answer(result: object) -> object:
        return {"status": "success", "data": {"resultType": "vector", "result": result}}

    assert number(answer([{"metric": {}, "value": [1, "0.5"]}])) == 0.5
    assert number(answer([1, "7"])) == 7
    for wrong in (answer([]), answer([{"value": [1, "NaN"]}]), answer([{"value": [1, "1"]}] * 2), {}, None):
        with pytest.raises(ValueError, match=r".") as refused:
            number(wrong)
        assert not isinstance(refused.value, RaystackError)


def test_people_see_each_version_the_evidence_and_the_decisions(tmp_path: Path) -> None:
    service, made = Service(errors=500), plan(tmp_path)
    store = begun(made, service)
    *_, last = run(control(made, store, service))
    view = RolloutView(made, last)
    assert dict(view.rows)["status"].startswith("rolled back: errors")
    assert [row["version"] for row in view.versions] == [OLD, NEW]
    assert int(view.versions[1]["errors"]) > 0
    assert {row["bound"] for row in view.bounds} == {"errors", "errors max", "latency"}
    assert [decision_row(each)["what"] for each in store.decisions()] == ["start", "roll back", "end"]
    assert rollout_rows(made)[0] == ("version", NEW)
    assert view.values["evidence"]["errors"] >= view.values["evidence_needed"] / 100
