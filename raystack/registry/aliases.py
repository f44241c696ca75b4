"""An alias that moves to another version, with who, why and what was measured: in tags and in the audit."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, Problem, ServingError
from raystack.registry.audit import Audit, Move, What
from raystack.registry.command import TAG_CHARS, RejectedError, UnavailableError
from raystack.registry.credentials import authorization

TAG = "raystack.promoted"
"""Name of a tag of a version, before a dot and the alias."""


def move_alias(
    model: str,
    alias: str,
    version: str,
    *,
    who: str,
    why: str,
    measured: Mapping[str, object],
    tracking: Tracking,
    storage: str,
    what: What = "promoted",
) -> Move:
    """Have the alias of a registered model point to a version, and record it; return what was recorded.

    `version` is a number, `tracking` has its `uri` decided, and `storage` is `experiment.storage`. If the
    alias points there already, nothing is moved and all the same it is recorded. Raises ConfigError if there
    is no such version, ServingError if MLflow does not answer.
    """
    try:
        before = _move(model, alias, version, _tag(who, why, measured), tracking)
    except (UnavailableError, RejectedError) as error:
        where = f"models:/{model}@{alias}"
        rule, remedy = f"MLflow does not move it to version {version}: {error}", "is its server up?"
        raise ServingError(Problem(where, rule=rule, got=tracking.uri, remedy=remedy)) from None
    move = Move(time.time(), what, model, alias, version, before, who, why, dict(measured))
    Audit(storage, model).add(move)
    return move


def _move(model: str, alias: str, version: str, tag: str, tracking: Tracking) -> str | None:
    """Move it, tag the version, and return the number of the version before."""
    uri = tracking.uri or ""
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        rule = f"there is no MLflow store at {uri} yet"
        raise ConfigError(Problem(f"models:/{model}/{version}", rule=rule))
    from raystack.registry.versions import point  # imports MLflow

    return point(uri, authorization(tracking), model, alias, version, {f"{TAG}.{alias}": tag})


def _tag(who: str, why: str, measured: Mapping[str, object]) -> str:
    text = json.dumps({"who": who, "why": why, "measured": measured}, default=str, ensure_ascii=False)
    return text if len(text) <= TAG_CHARS else json.dumps({"who": who, "why": why[:1000]})
