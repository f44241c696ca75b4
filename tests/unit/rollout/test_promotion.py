"""The end of a rollout in the registry: recorded once, also if the process is killed after it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pretended import plan

from raystack import registry
from raystack.errors import ConfigError, Problem
from raystack.registry import aliases
from raystack.registry.audit import Audit
from raystack.registry.command import UnavailableError
from raystack.rollout.promotion import move_alias, record_back
from raystack.rollout.state import State

VERSION = "models:/digits/7"


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What MLflow is asked for."""
    made: list[tuple[Any, ...]] = []

    def pin(uri: str, tracking: object) -> str:
        if not made:
            raise ConfigError(Problem(uri, rule="there is no such alias"))
        return VERSION

    monkeypatch.setattr(registry, "pin", pin)
    monkeypatch.setattr(aliases, "move_alias", lambda *of, **more: made.append((*of, more["why"])))
    return made


def test_an_alias_is_moved_once(tmp_path: Path, moves: list[tuple[Any, ...]]) -> None:
    rolled = replace(plan(tmp_path), registered="digits", alias="champion")
    state = State("digits-1", "digits", "models:/digits/6", VERSION, began=0.0)
    move_alias(rolled, state)
    move_alias(rolled, state)
    assert moves == [("digits", "champion", "7", f"rollout digits-1 of {VERSION} is complete")]


def test_a_folder_has_no_alias_to_move(tmp_path: Path, moves: list[tuple[Any, ...]]) -> None:
    move_alias(plan(tmp_path), State("digits-1", "digits", "/a", "/b", began=0.0))
    assert not moves


def test_a_version_that_went_back_is_in_the_audit_once_also_without_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise UnavailableError("it is away")

    monkeypatch.setattr(aliases, "version_of", away)
    rolled = replace(plan(tmp_path), registered="digits", alias="champion")
    state = State("digits-1", "digits", "models:/digits/6", VERSION, began=0.0)
    state = replace(state, ending="rolled back", cause="errors: 9 of its 10 requests failed")
    record_back(rolled, state)
    record_back(rolled, state)
    (move,) = Audit(rolled.config.experiment.storage, "digits").moves("champion")
    assert (move.what, move.version, move.who) == ("rolled back", "7", "raystack rollout")
    assert move.why.startswith("rollout digits-1 was rolled back: errors: 9 of its 10 requests failed")
    assert move.measured["candidate"]["version"] == VERSION
