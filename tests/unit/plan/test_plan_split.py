"""Versions beside a model as applications, and what no split can be of."""

from pathlib import Path

import pytest

from raystack import config
from raystack.errors import ConfigError
from raystack.plan import plan_serving
from raystack.plan.describe import rows as rows_of

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"


def load(tmp_path: Path, split: str, *more: str) -> config.RunConfig:
    own = TINY.read_text(encoding="utf-8") + f"\nserving:\n  {split}\n"
    file = tmp_path / "config.yaml"
    file.write_text(own, encoding="utf-8")
    return config.load(file, list(more))


def test_each_other_version_is_an_application_of_its_own(tmp_path: Path) -> None:
    split = "split: {models: {/models/two: 0.1}, shadow: {model: /models/two}, replicas: 3}"
    plan = plan_serving(load(tmp_path, split, "serving.model=/models/one", "serving.name=tiny"))
    ((name, other),) = plan.beside.items()
    assert name.startswith("tiny@")
    assert (other.model, other.serving.replicas, other.serving.split) == ("/models/two", 3, None)
    assert plan.applications == (name, "tiny")


def test_a_dry_run_shows_who_gets_what(tmp_path: Path) -> None:
    split = "split: {models: {/models/two: 0.1}, shadow: {model: /models/three}, sticky: {header: x-user}}"
    plan = plan_serving(load(tmp_path, split, "serving.model=/models/one"))
    rows = rows_of(plan)
    assert ("version", "/models/two answers 0.1 of the requests") in rows
    assert ("sticky", "requests of one header x-user stay with a version") in rows
    assert ("shadow", "/models/three gets copies of 1 of the requests") in rows


@pytest.mark.parametrize(
    ("split", "more", "message"),
    [
        (
            "split: {models: {/models/one: 0.1}}",
            ["serving.model=/models/one"],
            r"serving\.split: is the version that is served.*/models/one",
        ),
        (
            "split: {models: {/models/two: 0.1}}",
            ["+serving.models.a.model=/models/one"],
            r"serving\.split: is of one model.*serving\.models\.NAME\.split",
        ),
        (
            "split: {models: {/models/two: 0.6, /models/three: 0.6}}",
            ["serving.model=/models/one"],
            "should be at most 1 together",
        ),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, split: str, more: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_serving(load(tmp_path, split, *more))
