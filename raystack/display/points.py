"""Points of a search space as short text."""

import json
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Return the shortest end of each dotted path that no other one has, e.g. `lr` or `optimizer.lr`."""
    parts = {path: path.split(".") for path in paths}
    depth = dict.fromkeys(parts, 1)
    while True:
        names = {path: ".".join(words[-depth[path] :]) for path, words in parts.items()}
        seen = Counter(names.values())
        clashes = [path for path in parts if seen[names[path]] > 1 and depth[path] < len(parts[path])]
        if not clashes:
            return names
        for path in clashes:
            depth[path] += 1


def value_text(value: Any) -> str:
    """Return a value of a point, with four digits of a number that is not whole."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def metric_text(value: float | None) -> str:
    """Return a metric's value; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.5g}" if math.isfinite(value) else str(value)


def shortened(text: str, width: int) -> str:
    """Return `text` in at most `width` characters, with an ellipsis at its end if it is longer."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def duration(seconds: float) -> str:
    """Return a time in its two largest units, e.g. `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
