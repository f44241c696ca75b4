"""A number of Prometheus, by its API for instant queries."""

import json
import math
import urllib.error
import urllib.parse
import urllib.request

from raystack.config.rollout import Metric

ANSWER_S = 5.0
"""Seconds that Prometheus may take."""
BODY_BYTES = 1_000_000


def ask(metric: Metric, name: str, version: str) -> float:
    """Return the number of a metric. Raises OSError if Prometheus does not answer, ValueError if it has no
    number, or more than one.
    """
    query = metric.query.replace("{model}", name).replace("{version}", version.rpartition("/")[2])
    url = f"{metric.url.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
            return number(json.loads(answer.read(BODY_BYTES)))
    except urllib.error.HTTPError as refused:
        with refused:
            raise ValueError(f"Prometheus refuses the query: {_why(refused)}") from None


def _why(refused: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(refused.read(BODY_BYTES))["error"])
    except (ValueError, KeyError, TypeError):  # by something in front of it
        return str(refused)


def number(answer: object) -> float:
    """Return the one number of an answer: a scalar, or a vector with one element. Raises ValueError."""
    match answer:
        case {"status": "success", "data": {"result": [int() | float(), str(text)]}}:
            pass
        case {"status": "success", "data": {"result": [{"value": [_, str(text)]}]}}:
            pass
        case {"status": "success", "data": {"result": []}}:
            raise ValueError("the query has no result")
        case {"status": "success"}:
            raise ValueError("the query has more than one result; aggregate them")
        case _:
            raise ValueError("Prometheus refuses the query")
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the query results in {text}")
    return value
