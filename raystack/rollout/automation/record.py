"""The record of an automation, in its folder: what it remembers, and a file for each step that it took.

state.json    the State
audit/        a JSON file for each step; none is ever changed or deleted
told.json     the last step that all receivers of events have
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from raystack import strict_json
from raystack.errors import ConfigError, Problem
from raystack.rollout.automation.rounds import State
from raystack.storage import Storage

STATE, AUDIT, TOLD = "state.json", "audit", "told.json"

_STATE = TypeAdapter(State)


@dataclass(frozen=True)
class Entry:
    """One step."""

    at: float
    """Seconds since 1970."""
    step: str
    """One word, such as `started`."""
    what: str
    """In words."""
    round: str | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """What was measured or decided with."""
    number: int = 0
    """Steps are numbered in the order in which they are recorded."""
    id: str = ""
    """The same if a step is recorded again after the process was killed in the middle of it."""


class Record:
    """The files of one automation, for one process at a time."""

    def __init__(self, folder: str) -> None:
        self._storage = Storage(folder)
        if self._storage.local:
            self._storage.make(AUDIT)
        self._count = len(self._storage.names(AUDIT))

    def state(self) -> State | None:
        """Return what is remembered; None before the first step. Raises ConfigError if it cannot be read."""
        try:
            return _STATE.validate_json(self._storage.read(STATE))
        except FileNotFoundError:
            return None
        except (ValidationError, UnicodeDecodeError):
            rule, remedy = "is no state of an automation", "delete it to begin anew"
            raise ConfigError(Problem(self._storage.path(STATE), rule=rule, remedy=remedy)) from None

    def write(self, state: State) -> None:
        """Remember."""
        self._storage.write(STATE, strict_json.dumps(asdict(state), indent=2))

    def add(self, entry: Entry) -> Entry:
        """Append a step to the audit; return it with its number and id."""
        self._count += 1
        identity = entry.id or f"{int(entry.at * 1000):015d}-{secrets.token_hex(3)}"
        entry = Entry(**{**asdict(entry), "number": self._count, "id": identity})
        self._storage.write(f"{AUDIT}/{identity}.json", strict_json.dumps(asdict(entry), indent=2))
        return entry

    def entries(self, after: float = 0.0) -> list[Entry]:
        """Return the steps after a time, the oldest first."""
        names = self._storage.names(AUDIT)
        found = (Entry(**json.loads(self._storage.read(f"{AUDIT}/{name}"))) for name in names)
        return sorted((entry for entry in found if entry.at > after), key=lambda entry: entry.number)

    def told(self) -> float:
        """Return the time of the last step that all receivers have."""
        try:
            return float(json.loads(self._storage.read(TOLD))["at"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return 0.0

    def tell(self, at: float) -> None:
        """Remember that all receivers have the steps up to a time."""
        self._storage.write(TOLD, json.dumps({"at": at}))
