"""What became of the versions of a registered model: every move of an alias, and every refusal of one.

A folder `<storage>/registry/<model>/audit` with a file for each. None is ever changed or deleted: object
stores cannot append to a file, and two that write at the same moment do not meet.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from raystack import strict_json
from raystack.storage import Storage

What = Literal["promoted", "demoted", "forced", "refused"]
"""`forced`: promoted although a gate refused it."""


@dataclass(frozen=True)
class Move:
    """A move of an alias, or the refusal of one."""

    at: float
    """Seconds since 1970."""
    what: What
    model: str
    alias: str
    version: str
    """Number of the version that the alias points to now, or would have."""
    before: str | None
    """Number of the version that it pointed to."""
    who: str
    why: str
    measured: Mapping[str, Any] = field(default_factory=dict)


class Audit:
    """The record of one registered model."""

    def __init__(self, storage: str, model: str) -> None:
        self._storage = Storage(f"{storage}/registry/{model}/audit")

    def add(self, move: Move) -> None:
        """Append a move."""
        if self._storage.local:
            self._storage.make("")
        name = f"{int(move.at * 1e6):017d}-{secrets.token_hex(3)}.json"
        self._storage.write(name, strict_json.dumps(asdict(move), indent=2, ensure_ascii=False))

    def moves(self, alias: str | None = None) -> list[Move]:
        """Return all moves, or those of one alias, the oldest first."""
        found = (Move(**json.loads(self._storage.read(name))) for name in self._storage.names())
        return [move for move in found if alias is None or move.alias == alias]

    def version_before(self, alias: str, version: str) -> str | None:
        """Return the number of the version that the alias pointed to before it moved to `version` last."""
        to = [
            move
            for move in self.moves(alias)
            if move.version == version and move.before != version and move.what in ("promoted", "forced")
        ]
        return to[-1].before if to else None
