"""An alias that moves to another version, or that a gate or a rollout refuses it: who, why and what was
measured, in tags of the version and in the audit.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, Problem, ServingError
from raystack.registry.audit import Audit, Move, What
from raystack.registry.command import TAG_CHARS, RejectedError, UnavailableError
from raystack.registry.files import placed
from raystack.registry.resolve import version_of

MOVED, REFUSED = "raystack.promoted", "raystack.refused"
"""Names of tags of a version, before a dot and the alias. Each has the last move or refusal."""


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
    is no such version, ServingError if MLflow does not answer: the audit then has the move as unknown, unless
    MLflow did not answer before it.
    """
    uri = f"models:/{model}/{version}"
    move = Move(time.time(), what, model, alias, version, None, who, why, dict(measured))
    try:
        with placed(uri):
            found = version_of(uri, tracking)
        move = replace(move, before=found.pointed(alias))
        with Audit(storage, model).making(move):
            found.tag(f"{MOVED}.{alias}", _tag(move))
            if move.before != version:
                found.point(alias)
    except (UnavailableError, RejectedError) as error:
        where = f"models:/{model}@{alias}"
        rule, remedy = f"MLflow does not move it to version {version}: {error}", "is its server up?"
        raise ServingError(Problem(where, rule=rule, got=tracking.uri, remedy=remedy)) from None
    return move


def refuse_alias(
    model: str,
    alias: str | None,
    version: str,
    *,
    who: str,
    why: str,
    measured: Mapping[str, object],
    tracking: Tracking,
    storage: str,
    what: What = "refused",
) -> Move:
    """Record that a version was refused by a gate, or rolled back; return what was recorded.

    The arguments are as those of `move_alias`. If MLflow does not take the tag, the audit says so.
    """
    move = Move(time.time(), what, model, alias, version, None, who, why, dict(measured))
    try:
        found = version_of(f"models:/{model}/{version}", tracking)
        found.tag(REFUSED if alias is None else f"{REFUSED}.{alias}", _tag(move))
    except (UnavailableError, RejectedError, ConfigError) as error:
        move = replace(move, why=f"{why}; MLflow has no tag that says so: {error}")
    Audit(storage, model).add(move)
    return move


def _tag(move: Move) -> str:
    at = datetime.fromtimestamp(move.at, UTC).isoformat(timespec="seconds")
    said = {"what": move.what, "at": at, "who": move.who, "why": move.why}
    text = json.dumps({**said, "measured": move.measured}, default=str, ensure_ascii=False)
    return text if len(text) <= TAG_CHARS else json.dumps({**said, "why": move.why[:1000]})
