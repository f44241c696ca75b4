"""What became of the versions of a registered model: every move of an alias, and every refusal of one.

A folder `<storage>/registry/<model>/audit` with a file for each. One is written before a move, too, so that
the record does not lack the move of a process that dies in it. No file is ever changed or deleted: object
stores cannot append to a file, and two that write at the same moment do not meet.
"""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from raystack import strict_json
from raystack.registry.command import RejectedError
from raystack.storage import Storage

What = Literal["promoted", "demoted", "forced", "refused", "rolled back"]
"""`forced`: promoted although a gate refused it. `rolled back`: by a rollout, before it had the alias."""
Outcome = Literal["done", "failed", "unknown"]
"""`failed`: MLflow refused it. `unknown`: it did not answer, or the process ended before it did."""


@dataclass(frozen=True)
class Move:
    """A move of an alias, or the refusal of one."""

    at: float
    """Seconds since 1970."""
    what: What
    model: str
    alias: str | None
    """None in a rollout that moves none."""
    version: str
    """Number of the version that the alias points to now, or would have."""
    before: str | None
    """Number of the version that it pointed to."""
    who: str
    why: str
    measured: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome = "done"


class Audit:
    """The record of one registered model."""

    def __init__(self, storage: str, model: str) -> None:
        self._storage = Storage(f"{storage}/registry/{model}/audit")

    def add(self, move: Move) -> None:
        """Append what has happened."""
        self._write(f"{_name(move)}.json", move)

    @contextmanager
    def making(self, move: Move) -> Iterator[None]:
        """Append a move that the block makes: before it with an unknown outcome, and after it with its own.

        RejectedError means that nothing was moved; after another error the outcome stays unknown.
        """
        name = _name(move)
        self._write(f"{name}.begun.json", replace(move, outcome="unknown"))
        try:
            yield
        except RejectedError:
            self._write(f"{name}.json", replace(move, outcome="failed"))
            raise
        self._write(f"{name}.json", move)

    def moves(self, alias: str | None = None) -> list[Move]:
        """Return all moves, or those of one alias, the oldest first."""
        # They are sorted, so that the end of a move takes the place of its beginning.
        last = {name.partition(".")[0]: name for name in self._storage.names()}
        found = (Move(**json.loads(self._storage.read(name))) for name in last.values())
        return [move for move in found if alias is None or move.alias == alias]

    def version_before(self, alias: str, version: str) -> str | None:
        """Return the number of the version that the alias pointed to before it moved to `version` last."""
        to = [
            move
            for move in self.moves(alias)
            if move.version == version
            and move.before != version
            and move.what in ("promoted", "forced")
            # One of an unknown outcome was made, since the alias points there.
            and move.outcome != "failed"
        ]
        return to[-1].before if to else None

    def _write(self, name: str, move: Move) -> None:
        if self._storage.local:
            self._storage.make("")
        self._storage.write(name, strict_json.dumps(asdict(move), indent=2, ensure_ascii=False))


def _name(move: Move) -> str:
    return f"{int(move.at * 1e6):017d}-{secrets.token_hex(3)}"
