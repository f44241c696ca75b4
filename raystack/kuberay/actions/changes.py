"""Changes by applying a manifest.

In: the live object, and the object as it would be. Out: Changes.

The object as it would be is the result of the server's dry run: it includes defaults and fields of other
managers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from raystack.kuberay.actions.differences import ABSENT, differences, own, within_text, written
from raystack.kuberay.actions.effects import Effect, effect
from raystack.kuberay.api.kinds import Object

HIDDEN = "(hidden)"
_KEYED = re.compile(r'\[\w+="([^"]*)"\]')
"""Item of a list as the server writes it: `[name="ray-head"]`."""


@dataclass(frozen=True)
class Change:
    """Field that differs."""

    path: str
    """Path, e.g. `spec.workerGroupSpecs[gpu].replicas`; empty for the object itself."""
    before: Any
    after: Any
    """None if the field is removed."""
    effect: Effect
    why: str
    """Explanation in one line."""


def changes(live: Object | None, after: Object, contested: Mapping[str, str] = {}) -> list[Change]:
    """Return the changes in the order of the fields, or the creation if there is no live object.

    `contested` maps fields, as the server writes them, to reasons why they cannot be changed. Contested
    fields that do not differ come last.
    """
    if live is None:
        return [Change("", None, f"{after['kind']}/{after['metadata']['name']}", "in place", "it is made")]
    hidden = after["kind"] == "Secret"
    found = [
        Change(written(part), _shown(old, hidden), _shown(new, hidden), *effect(live, after, path))
        for path, before, value in differences(own(live), own(after))
        for part, old, new in ([(path, before, value)] if hidden else within_text(path, before, value))
    ]
    refusals = {_KEYED.sub(r"[\1]", field.removeprefix(".")): why for field, why in contested.items()}
    left = {field: Change(field, None, None, "refused", why) for field, why in refusals.items()}
    for index, change in enumerate(found):
        for field, why in refusals.items():
            if change.path == field or change.path.startswith((f"{field}.", f"{field}[")):
                found[index] = replace(change, effect="refused", why=why)
                left.pop(field, None)
    return [*found, *left.values()]


def _shown(value: Any, hidden: bool) -> Any:
    if value is ABSENT:
        return None
    return HIDDEN if hidden else value
