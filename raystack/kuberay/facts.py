"""Amounts as Kubernetes writes them. In: `500m`, `2Gi`. Out: a number."""

import re

_SUFFIX = {
    "m": 1e-3,
    "": 1.0,
    **{unit: 1e3**power for power, unit in enumerate("kMGTP", 1)},
    **{f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTP", 1)},
}


def amount(quantity: str) -> float:
    """A Kubernetes quantity as a number: `500m` is 0.5, `2Gi` 2147483648."""
    found = re.fullmatch(r"([0-9.]+(?:[eE]-?\d+)?)([a-zA-Z]*)", str(quantity))
    return float(found.group(1)) * _SUFFIX.get(found.group(2), 1.0) if found else 0.0
