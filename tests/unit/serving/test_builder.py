"""Arguments of `serve run` and RayService become an application, or one error that names the argument."""

from pathlib import Path
from typing import Any

import pytest

from raystack.config.serving import Batching
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError
from raystack.serving.builder import served_of
from raystack.serving.served import Served

CONFIG = Path(__file__).parents[2] / "tiny" / "config.yaml"


def test_arguments_as_text() -> None:
    served = served_of(
        {
            "model": "models:/digits/3",
            "replicas": "2",
            "batching.max_size": "64",
            "tracking_uri": "http://mlflow:5000",
        }
    )
    assert served == Served(
        name="digits",
        model="models:/digits/3",
        tracking=Tracking(uri="http://mlflow:5000"),
        tracking_uri="http://mlflow:5000",
        replicas=2,
        cpus=1.0,
        gpus=0.0,
        threads=1,
        max_ongoing=100,
        max_queued=1000,
        batching=Batching(max_size=64),
    )


def test_a_config_with_overrides() -> None:
    served = served_of({"config": str(CONFIG), "overrides": "serving.model=/models/a serving.replicas=3"})
    assert (served.name, served.model, served.replicas) == ("tiny", "/models/a", 3)
    assert served == served_of(
        {"config": str(CONFIG), "overrides": ["serving.model=/models/a", "serving.replicas=3"]}
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"model": "models:/a/1", "replica": "2"},
            "argument 'replica': is not known here; did you mean 'replicas'?",
        ),
        ({"model": "models:/a/1", "port": "80"}, "argument 'port': is not known here"),
        (
            {"config": "a.yaml", "replicas": "2"},
            "argument 'replicas': is not known beside config; put it into overrides",
        ),
        ({"model": "models:/a/1", "replicas": "two"}, "argument 'replicas': should be a valid integer"),
        (
            {"model": "models:/a/1", "batching.max_size": "0"},
            "argument 'batching.max_size': should be greater than 0",
        ),
        ({}, "argument 'model': is required, or config"),
        ({"model": "/models/a"}, "argument 'name': is required with a model that is not in the registry"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        served_of(arguments)
    assert message in str(raised.value)
