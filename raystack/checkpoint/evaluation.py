"""`evaluation.json` of a model: its metrics chunk by chunk over its eval sets, and which data these are.

Two models that were evaluated on the same data can be compared by it, chunk by chunk, without the task.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raystack import strict_json

EVALUATION = "evaluation.json"
FORMAT = 1


@dataclass(frozen=True)
class EvaluatedSet:
    """One eval set."""

    fingerprint: str
    """SHA-256 over its samples in their order: other data has another one."""
    samples: int
    chunks: tuple[Mapping[str, float], ...]
    """Mean of each metric over each chunk of samples. Metrics that do not add up over samples have none."""

    def values(self, metric: str) -> list[float] | None:
        """Return a metric of each chunk; None if a chunk has none."""
        found = [chunk.get(metric) for chunk in self.chunks]
        known = [value for value in found if value is not None]
        return known if known and len(known) == len(found) else None


Evaluated = Mapping[str, EvaluatedSet]
"""Sets by the prefix of their metrics, such as `eval/`."""


def write_evaluation(folder: Path, sets: Evaluated, why: str | None = None) -> None:
    """Write the sets into the existing `folder`, or why there are none."""
    values = {prefix: asdict(each) for prefix, each in sets.items()}
    text = strict_json.dumps({"format": FORMAT, "sets": values, "why": why})
    (folder / EVALUATION).write_text(text, encoding="utf-8")


def read_evaluation(folder: Path) -> Evaluated:
    """Return the sets of the model folder at `folder`; none without a record of this format."""
    try:
        values = _read(folder)
        if values["format"] != FORMAT:
            return {}
        return {
            prefix: EvaluatedSet(
                each["fingerprint"], each["samples"], tuple(map(strict_json.numbers, each["chunks"]))
            )
            for prefix, each in values["sets"].items()
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def why_none(folder: Path) -> str:
    """Return why the model folder at `folder` has no sets, and what to do."""
    try:
        return _read(folder)["why"] or "its task has no eval data"
    except (OSError, ValueError, KeyError, TypeError):
        return "train it with registry.gates set"


def _read(folder: Path) -> Any:
    return json.loads((folder / EVALUATION).read_text(encoding="utf-8"))


def set_of(sets: Iterable[str], metric: str) -> tuple[str, str] | None:
    """Return the prefix of the set that a metric is of, the longest that fits, and the metric's own name.

    `sets` are the prefixes.
    """
    fitting = [prefix for prefix in sets if metric.startswith(prefix)]
    if not fitting:
        return None
    prefix = max(fitting, key=len)
    return prefix, metric.removeprefix(prefix)
