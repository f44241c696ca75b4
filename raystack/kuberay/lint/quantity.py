"""Quantities of Kubernetes, exactly: in a float 0.1 and 100m need not be equal."""

import re
from fractions import Fraction

_UNITS: dict[str, Fraction] = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    **{unit: Fraction(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Fraction(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}
_FORM = re.compile(rf"([+-]?(?:\d+\.?\d*|\.\d+))({'|'.join(_UNITS)}|[eE][+-]?\d{{1,3}})?")


def exactly(quantity: object) -> Fraction | None:
    """Return an amount such as `500m`, `4Gi` or 2, or None if it is none."""
    if isinstance(quantity, bool) or not isinstance(quantity, str | int | float):
        return None
    found = _FORM.fullmatch(str(quantity))
    if found is None:
        return None
    number, unit = Fraction(found[1]), found[2] or ""
    if unit in _UNITS:
        return number * _UNITS[unit]
    return Fraction(found[1] + unit) if unit else number
