"""Every move of an alias is recorded, in the audit and in a tag of the version."""

import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, ServingError
from raystack.registry.aliases import move_alias, refuse_alias
from raystack.registry.audit import Audit, Move
from raystack.registry.command import RejectedError
from raystack.registry.resolve import newest_version
from raystack.registry.versions import Version

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


def move(store: str, storage: Path, version: str) -> Move:
    return move_alias(
        "digits",
        "champion",
        version,
        who="anna",
        why="it is better",
        measured={"eval/accuracy": 0.9},
        tracking=Tracking(uri=store),
        storage=str(storage),
    )


def refuse(store: str, storage: Path, alias: str | None) -> Move:
    return refuse_alias(
        "digits",
        alias,
        "2",
        who="anna",
        why="size_mb: too large",
        measured={"size_mb": 3.0},
        tracking=Tracking(uri=store),
        storage=str(storage),
    )


def test_a_move_is_recorded_with_who_why_and_what_was_measured(store: str, tmp_path: Path) -> None:
    for version in ("1", "2"):
        move(store, tmp_path, version)
    client = MlflowClient(store, store)
    assert client.get_model_version_by_alias("digits", "champion").version in (2, "2")
    tag = json.loads(client.get_model_version("digits", "2").tags["raystack.promoted.champion"])
    assert tag.pop("at")
    assert tag == {
        "what": "promoted",
        "who": "anna",
        "why": "it is better",
        "measured": {"eval/accuracy": 0.9},
    }
    audit = Audit(str(tmp_path), "digits")
    assert [(move.before, move.version, move.who) for move in audit.moves("champion")] == [
        (None, "1", "anna"),
        ("1", "2", "anna"),
    ]
    assert audit.version_before("champion", "2") == "1"
    assert audit.moves("other") == []


def test_a_version_that_is_not_there_moves_and_records_nothing(store: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^models:/digits/7: model 'digits' has no version 7"):
        move(store, tmp_path, "7")
    with pytest.raises(ServingError, match="MLflow does not move it to version 7"):
        move("http://127.0.0.1:9", tmp_path, "7")
    assert Audit(str(tmp_path), "digits").moves() == []


def test_a_model_without_a_version_has_no_newest_one(store: str) -> None:
    MlflowClient(store, store).create_registered_model("empty")
    assert newest_version("digits", Tracking(uri=store)) == "models:/digits/2"
    with pytest.raises(
        ConfigError, match=r"model 'empty' has no version yet \(got models:/empty\); train with"
    ):
        newest_version("empty", Tracking(uri=store))


@pytest.mark.parametrize(("moved", "before"), [(False, "1"), (True, "2")])
def test_a_process_that_dies_in_a_move_leaves_it_in_the_audit_as_unknown(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: bool, before: str
) -> None:
    move(store, tmp_path, "1")
    real = Version.point

    def dies(version: Version, alias: str) -> None:
        if moved:
            real(version, alias)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Version, "point", dies)
        with pytest.raises(KeyboardInterrupt):
            move(store, tmp_path, "2")
    audit = Audit(str(tmp_path), "digits")
    assert [(one.version, one.before, one.outcome) for one in audit.moves()] == [
        ("1", None, "done"),
        ("2", "1", "unknown"),
    ]
    assert audit.version_before("champion", "2") == "1", "as it was made, if the alias is there"
    again = move(store, tmp_path, "2")
    assert (again.before, again.outcome) == (before, "done")
    assert [one.outcome for one in audit.moves()] == ["done", "unknown", "done"]
    assert audit.version_before("champion", "2") == "1"


def test_a_move_that_mlflow_refuses_has_failed(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(version: Version, alias: str) -> None:
        raise RejectedError("not allowed", everything=True)

    monkeypatch.setattr(Version, "point", refuses)
    with pytest.raises(ServingError, match="not allowed"):
        move(store, tmp_path, "2")
    audit = Audit(str(tmp_path), "digits")
    assert [one.outcome for one in audit.moves()] == ["failed"]
    assert audit.version_before("champion", "2") is None


def test_a_refusal_is_a_tag_of_the_version_and_in_the_audit(store: str, tmp_path: Path) -> None:
    for alias in ("champion", None):
        refuse(store, tmp_path, alias)
    tags = MlflowClient(store, store).get_model_version("digits", "2").tags
    said = json.loads(tags["raystack.refused.champion"])
    assert (said["what"], said["who"], said["measured"]) == ("refused", "anna", {"size_mb": 3.0})
    assert "raystack.refused" in tags
    away = refuse("http://127.0.0.1:9", tmp_path, "champion")
    assert away.why.startswith(
        "size_mb: too large; MLflow has no tag that says so: the connection is refused"
    )
    assert [one.why for one in Audit(str(tmp_path), "digits").moves("champion")][1] == away.why
