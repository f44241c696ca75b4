"""What is served is looked up once, before anything is started for it."""

import shutil
from pathlib import Path

import pytest

from raystack.config import load
from raystack.errors import ConfigError
from raystack.launch import local
from raystack.plan import ServePlan, plan_serving
from raystack.registry.connection import connect
from raystack.serving.pin import pin, pinned

CONFIG = Path(__file__).parents[2] / "tiny" / "config.yaml"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> str:
    """A registry where `tiny` has version 1, which is the champion."""
    uri = f"sqlite:///{shutil.copy(empty_store, tmp_path_factory.mktemp('store'))}"
    client = connect(uri, None)
    client.create_registered_model("tiny")
    client.create_model_version("tiny", "/models/tiny")
    client.set_registered_model_alias("tiny", "champion", "1")
    return uri


def plan(model: str, store: str) -> ServePlan:
    tracking = f"tracking={{kind: mlflow, uri: '{store}'}}"
    return plan_serving(load(CONFIG, [f"serving.model={model}", "serving.name=tiny", tracking]))


def test_an_alias_becomes_the_version_that_it_points_to(store: str) -> None:
    assert pin(plan("models:/tiny@champion", store)).model == "models:/tiny/1"
    assert pin(plan("models:/tiny/1", store)).model == "models:/tiny/1"


def test_a_folder_becomes_absolute_and_a_url_stays(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/tmp")
    for model, meant in (("runs/a", "/tmp/runs/a"), ("s3://bucket/run", "s3://bucket/run")):
        asked = plan(model, store)
        assert pinned(asked.serving, asked.tracking).model == meant


@pytest.mark.parametrize(
    ("model", "rule"),
    [
        ("models:/tiny/7", "model 'tiny' has no version 7"),
        ("models:/tiny@nope", "model 'tiny' has no alias 'nope'"),
        ("models:/tinny/1", "there is no registered model 'tinny'"),
        ("/nothing", "there is no such folder"),
    ],
)
def test_a_model_that_is_not_there_is_refused_before_ray_is_started(
    store: str, model: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*args: object, **options: object) -> None:
        raise AssertionError("Ray would be started")

    monkeypatch.setattr(local, "cluster", start)
    with (
        pytest.raises(ConfigError, match=f"serving.model: {rule}") as refused,
        local.serving(plan(model, store), verbose=False),
    ):
        pass
    assert refused.value.exit_code == 2
