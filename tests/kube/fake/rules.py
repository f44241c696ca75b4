"""The few forms of CEL that KubeRay's CRDs use: in go a rule, a value and its former value, out comes whether
it holds.

A rule of any other form is an error, so that a new one is noticed rather than ignored.
"""

import ast
import re
from collections.abc import Iterator
from typing import Any

_TOKEN = re.compile(r"\s*(has\(self\.\w+\)|self == oldSelf|self in \[[^\]]*\]|&&|\|\||[!()])")


def about_change(rule: str) -> bool:
    """Whether the rule compares with the former value; then it says nothing about a new object."""
    return "oldSelf" in rule


def holds(rule: str, value: Any, old: Any) -> bool:
    """Evaluate the rule."""
    tokens = list(_tokens(rule))
    result = _either(tokens, value, old)
    if tokens:
        raise ValueError(f"the fake cluster cannot evaluate the rule {rule!r}")
    return result


def _tokens(rule: str) -> Iterator[str]:
    at = 0
    while at < len(rule.rstrip()):
        match = _TOKEN.match(rule, at)
        if match is None:
            raise ValueError(f"the fake cluster cannot evaluate the rule {rule!r}")
        yield match[1]
        at = match.end()


def _either(tokens: list[str], value: Any, old: Any) -> bool:
    result = _both(tokens, value, old)
    while tokens and tokens[0] == "||":
        tokens.pop(0)
        result = _both(tokens, value, old) or result
    return result


def _both(tokens: list[str], value: Any, old: Any) -> bool:
    result = _one(tokens, value, old)
    while tokens and tokens[0] == "&&":
        tokens.pop(0)
        result = _one(tokens, value, old) and result
    return result


def _one(tokens: list[str], value: Any, old: Any) -> bool:
    token = tokens.pop(0)
    if token == "!":
        return not _one(tokens, value, old)
    if token == "(":
        result = _either(tokens, value, old)
        tokens.pop(0)
        return result
    if token == "self == oldSelf":
        return bool(value == old)
    if token.startswith("self in "):
        return value in ast.literal_eval(token.removeprefix("self in "))
    return token.removeprefix("has(self.").removesuffix(")") in value
