"""The files of a rollout.

config.yaml   the config, with both versions decided
state.json    the State, after every interval
decisions/    a file for each Decision with the state that follows from it; none is ever changed or deleted
orders/       what people and programs ask of the rollout; each is deleted when it has been decided on

A decision is written before it is carried out, and before `state.json`: whoever goes on after a crash finds
it. All files are written atomically.
"""

import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

from pydantic import TypeAdapter, ValidationError

from raystack import config as configs
from raystack import strict_json
from raystack.config import RunConfig
from raystack.errors import ConfigError, Problem
from raystack.rollout.state import Decision, State
from raystack.storage import Storage

CONFIG, STATE, DECISIONS, ORDERS = "config.yaml", "state.json", "decisions", "orders"
CURRENT = "current.json"

Verb = Literal["pause", "resume", "abort", "promote"]
VERBS: tuple[Verb, ...] = get_args(Verb)

_STATE, _DECISION = TypeAdapter(State), TypeAdapter(Decision)


@dataclass(frozen=True)
class Order:
    """Something that is asked of a rollout."""

    name: str
    verb: Verb
    who: str
    why: str = ""
    at: float = 0.0


class RolloutStore:
    """The files of one rollout, below its folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._storage = Storage(folder)

    def create(self, config: RunConfig, state: State, decision: Decision) -> None:
        """Write the files of a new rollout, and its first decision."""
        if self._storage.local:
            for name in ("", DECISIONS, ORDERS):
                self._storage.make(name)
        self._storage.write(CONFIG, configs.dump(config))
        self.decide(state, decision)

    def config(self) -> RunConfig:
        """Return the config with both versions decided."""
        return configs.loads(self._storage.read(CONFIG))

    def state(self) -> State:
        """Return where the rollout is. Raises ConfigError if the folder has none."""
        state = self._written()
        # The last decision may be newer than the file.
        if (decided := self._decided(0 if state is None else state.decided)) is not None:
            return decided
        if state is None:
            raise ConfigError(Problem(self.folder, rule="there is no rollout in this folder"))
        return state

    def write(self, state: State) -> None:
        """Write where the rollout is."""
        self._storage.write(STATE, strict_json.dumps(asdict(state), indent=2))

    def decide(self, state: State, decision: Decision) -> State:
        """Write a decision with the state that follows from it; return that state."""
        number = state.decided
        state = replace(state, decided=number + 1, last=f"{decision.what}: {decision.why}")
        text = strict_json.dumps({**asdict(decision), "state": asdict(state)}, indent=2, ensure_ascii=False)
        self._storage.write(_file(number), text)
        self.write(state)
        if decision.order:
            self._storage.delete(f"{ORDERS}/{decision.order}.json")
        return state

    def decisions(self, first: int = 0) -> list[Decision]:
        """Return the decisions from a number on, the first one first."""
        names = [name for name in self._storage.names(DECISIONS) if f"{DECISIONS}/{name}" >= _file(first)]
        found = (json.loads(self._storage.read(f"{DECISIONS}/{name}")) for name in names)
        return [_DECISION.validate_python({k: v for k, v in each.items() if k != "state"}) for each in found]

    def order(self, verb: Verb, *, who: str, why: str = "") -> str:
        """Ask something of the rollout, which need not be running; return the order's name."""
        at = time.time()
        name = f"{int(at * 1e6):017d}-{secrets.token_hex(3)}"
        order = {"verb": verb, "who": who, "why": why, "at": at}
        if self._storage.local:
            self._storage.make(ORDERS)
        self._storage.write(f"{ORDERS}/{name}.json", json.dumps(order))
        return name

    def orders(self, last: str) -> Iterator[Order]:
        """Yield what is asked, the oldest first; `last` was decided on and is left out."""
        for file in self._storage.names(ORDERS):
            name = file.removesuffix(".json")
            try:
                values = json.loads(self._storage.read(f"{ORDERS}/{file}"))
                order = Order(name, **values)
            except (FileNotFoundError, ValueError, TypeError):
                continue
            if name == last or order.verb not in VERBS:
                self._storage.delete(f"{ORDERS}/{file}")
            else:
                yield order

    def _written(self) -> State | None:
        try:
            return _STATE.validate_json(self._storage.read(STATE))
        except FileNotFoundError:
            return None
        except (ValidationError, UnicodeDecodeError):
            rule = "is no state of a rollout"
            raise ConfigError(Problem(self._storage.path(STATE), rule=rule)) from None

    def _decided(self, number: int) -> State | None:
        try:
            return _STATE.validate_python(json.loads(self._storage.read(_file(number)))["state"])
        except FileNotFoundError:
            return None


def _file(number: int) -> str:
    return f"{DECISIONS}/{number:05d}.json"


def current(folder: str) -> RolloutStore | None:
    """Return the rollout that was started last for a model, whose rollouts are in `folder`; None without."""
    try:
        name = json.loads(Storage(folder).read(CURRENT))["id"]
    except FileNotFoundError:
        return None
    return RolloutStore(f"{folder}/{name}")


def make_current(folder: str, identity: str) -> None:
    """Remember a rollout as the one that was started last for a model."""
    Storage(folder).write(CURRENT, json.dumps({"id": identity}))
