"""Every move of an alias is recorded, in the audit and in a tag of the version."""

import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, ServingError
from raystack.registry.aliases import move_alias
from raystack.registry.audit import Audit

pytestmark = pytest.mark.slow


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> str:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri, uri)
    client.create_registered_model("digits")
    for _ in range(2):
        client.create_model_version("digits", f"{tmp_path}/model")
    return uri


def test_a_move_is_recorded_with_who_why_and_what_was_measured(store: str, tmp_path: Path) -> None:
    for version in ("1", "2"):
        move_alias(
            "digits",
            "champion",
            version,
            who="anna",
            why="it is better",
            measured={"eval/accuracy": 0.9},
            tracking=Tracking(uri=store),
            storage=str(tmp_path),
        )
    client = MlflowClient(store, store)
    assert client.get_model_version_by_alias("digits", "champion").version in (2, "2")
    tag = json.loads(client.get_model_version("digits", "2").tags["raystack.promoted.champion"])
    assert tag == {"who": "anna", "why": "it is better", "measured": {"eval/accuracy": 0.9}}
    audit = Audit(str(tmp_path), "digits")
    assert [(move.before, move.version, move.who) for move in audit.moves("champion")] == [
        (None, "1", "anna"),
        ("1", "2", "anna"),
    ]
    assert audit.version_before("champion", "2") == "1"
    assert audit.moves("other") == []


def test_a_version_that_is_not_there_moves_and_records_nothing(store: str, tmp_path: Path) -> None:
    def move(uri: str) -> None:
        move_alias(
            "digits",
            "champion",
            "7",
            who="a",
            why="b",
            measured={},
            tracking=Tracking(uri=uri),
            storage=str(tmp_path),
        )

    with pytest.raises(ConfigError, match="has no version 7"):
        move(store)
    with pytest.raises(ServingError, match="MLflow does not move it to version 7"):
        move("http://127.0.0.1:9")
    assert Audit(str(tmp_path), "digits").moves() == []
