"""A server of several models: each has a plan of its own, and what cannot be is refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from raystack.config import load
from raystack.config.serving import Serving
from raystack.errors import ConfigError
from raystack.plan import ServePlan, plan_serving
from raystack.plan.serving import replicas

CONFIG = Path(__file__).parents[2] / "tiny" / "config.yaml"


def planned(*overrides: str) -> ServePlan:
    return plan_serving(load(CONFIG, ["tracking=local", *overrides]))


MODELS = "serving.models={one: {model: 'models:/digits/3', replicas: 3}, two: {model: /models/b}}"


def test_each_of_several_models_has_a_plan_of_its_own() -> None:
    plan = planned(MODELS, "serving={replicas: 2, batching: {max_size: 9}, port: 9000}")
    one, two = plan.models
    assert (one.name, one.model, one.serving.replicas) == ("one", "models:/digits/3", 3)
    assert (two.name, two.model, two.serving.replicas) == ("two", "/models/b", 2)
    assert one.serving.batching.max_size == 9, "what a model does not set is that of the section"
    assert (one.url, plan.url) == ("http://127.0.0.1:9000/v2/models/one", "http://127.0.0.1:9000/v2")
    assert [model.route for model in plan.models] == ["/v2/models/one", "/v2/models/two"]
    assert plan.applications == ("one", "two", "_server")
    (alone,) = planned("serving.model=/models/b").models
    assert (alone.route, alone.applications) == ("/", ("tiny",))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["serving.model=/models/a", MODELS], "serving.model: is the one model of a server"),
        (["serving.models={one: {replicas: 2}}"], "serving.models.one.model: there is no model to serve"),
        (
            [MODELS, "serving.multiplexed={models: {one: {model: /models/c}}}"],
            "serving.multiplexed.models.one: is the name of a model of serving.models, too",
        ),
    ],
)
def test_models_that_exclude_each_other(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        planned(*overrides)
    assert message in str(raised.value)


def test_a_models_name_can_stand_in_a_url() -> None:
    with pytest.raises(ValidationError, match="should be letters, digits"):
        Serving.model_validate({"models": {"a b": {"model": "/models/a"}}})


def test_replicas_by_the_requests() -> None:
    scaled = "serving.autoscaling={min_replicas: 0, max_replicas: 3, target_ongoing: 4}"
    plan = planned("serving.model=/models/a", scaled)
    options = replicas(plan.serving)["autoscaling_config"]
    assert (options["min_replicas"], options["initial_replicas"], options["max_replicas"]) == (0, 1, 3)
    assert options["target_ongoing_requests"] == 4.0
    own = planned(MODELS, scaled).models
    assert [model.serving.autoscaling is None for model in own] == [True, False], (
        "one has a number of its own"
    )
    with pytest.raises(ConfigError, match="at most max_replicas"):
        planned("serving.autoscaling={min_replicas: 4, max_replicas: 3}")
