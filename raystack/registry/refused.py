"""What MLflow refused of a run by its name or value, which costs that alone."""

from collections.abc import Mapping
from typing import Literal

Kind = Literal["metric", "param", "tag"]

SHOWN, SHOWN_CHARS = 5, 60
"""Names of refused things in one line, and characters of each."""


class Refused:
    """Names of metrics, params and tags that MLflow refused, each with MLflow's reason."""

    def __init__(self) -> None:
        self._reasons: dict[Kind, dict[str, str]] = {"metric": {}, "param": {}, "tag": {}}

    def __contains__(self, name: tuple[Kind, str]) -> bool:
        kind, key = name
        return key in self._reasons[kind]

    def add(self, kind: Kind, key: str, reason: str) -> None:
        self._reasons[kind][key] = reason

    @property
    def lines(self) -> list[str]:
        """One line for each kind of thing of which MLflow refused some."""
        return [_line(kind, refused) for kind, refused in self._reasons.items() if refused]


def _line(kind: Kind, refused: Mapping[str, str]) -> str:
    keys, reason = list(refused), next(iter(refused.values()))
    shown = ", ".join(
        repr(key if len(key) <= SHOWN_CHARS else f"{key[:SHOWN_CHARS]}...") for key in keys[:SHOWN]
    )
    if len(keys) == 1:
        return f"MLflow refused the {kind} {shown}, which is not recorded: {reason}"
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return (
        f"MLflow refused {len(keys)} {kind}s, which are not recorded: {shown}{more}; of the first: {reason}"
    )
