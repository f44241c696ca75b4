"""Overrides (`key=value`) of the command line in Hydra's grammar, and checks of their values."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, Sweep
from hydra.errors import HydraException

from raystack.config.fields import Fields
from raystack.config.run import RunConfig
from raystack.config.source import MAX_DIGITS, MAX_LEVELS, is_unicode, short
from raystack.errors import Problem

KEY = r"[A-Za-z_$][\w$-]*"
_IN_FILE = "set it in the file"
_DOMAINS = {
    "log": "write tag(log,interval(low,high))",
    "loguniform": "write tag(log,interval(low,high))",
    "uniform": "write interval(low,high)",
    "randint": "write int(interval(low,high))",
    "lograndint": "write tag(log,int(interval(low,high)))",
    "quniform": "write range(low,high,step)",
    "grid": "write choice(a,b)",
    "normal": "set it in the file, below tuning.space",
}
"""How Hydra's grammar says what a domain's name says."""


def parse(overrides: Sequence[str], *, sweeps: bool = False) -> tuple[list[Override], list[Problem]]:
    """Parse overrides in Hydra's grammar. Return a Problem for each invalid one as well.

    One with several values is invalid without `sweeps`.
    """
    parsed, problems = [], []
    for text in overrides:
        override = _parsed(text)
        if override is None:
            problem: Problem | None = _unreadable(text)
        elif override.is_sweep_override() and not sweeps:
            problem = _sweep(text, override)
        else:
            problem = next(_problems(text, override), None)
        if problem is not None:
            problems.append(problem)
        elif override is not None:
            parsed.append(override)
    return parsed, problems


def quoted(override: str, *, hide: bool = False) -> str:
    """Return the text of an override for messages, without its value if `hide` or for a secret."""
    key, equals, _ = override.partition("=")
    if equals and (hide or is_secret(key)):
        return f"override '{short(key)}=...'"
    return f"override '{short(override, 200)}'"


def is_secret(key: str) -> bool:
    """Return whether the key names a secret."""
    # By its name only, because these overrides have not been matched with the schema yet.
    return key.endswith(("password", "token"))


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def _parsed(text: str) -> Override | None:
    try:
        return _parser().parse_override(text)
    except (HydraException, ValueError, RecursionError):  # the last two: endless digits, endless brackets
        return None


def _unreadable(text: str) -> Problem:
    where = quoted(text)
    if not is_unicode(text):
        return Problem(where, rule="the override is not UTF-8 text")
    key, equals, value = text.partition("=")
    if not equals:
        remedy = f"write {short(text) or 'training.epochs'}=..., or ~key to delete a key"
        return Problem(where, rule="an override is key=value", remedy=remedy)
    part = rf"({KEY}|0|[1-9][0-9]*)"
    if not re.fullmatch(rf"\+{{0,2}}~?{KEY}((/{KEY})*|(\.{part})*)(@{KEY}(\.{part})*)?", key, re.ASCII):
        rule = "the part before '=' should be a dotted key, e.g. training.epochs"
        remedy = f"it is made of a-z, A-Z, 0-9, '_' and '-'; {_IN_FILE} where it has other characters"
        return Problem(where, rule=rule, got=repr(short(key)), remedy=remedy)
    rule = "the value cannot be read"
    if is_secret(key):
        return Problem(where, rule=rule, remedy=f"give a reference: {key}=secret:env:NAME")
    if re.search(rf"\d{{{MAX_DIGITS}}}", value):
        return Problem(where, rule=f"a number has at most {MAX_DIGITS} digits")
    if re.match(r"[\[{(\s]{30}", value):
        return Problem(where, rule=f"lists and mappings are more than {MAX_LEVELS} deep inside each other")
    if found := re.match(rf"\s*({'|'.join(_DOMAINS)})\s*\(", value):
        return Problem(where, rule=f"there is no function {found[1]}", remedy=_DOMAINS[found[1]])
    quote = None if value.startswith(("[", "{")) else _in_quotes(key, value)
    remedy = f"quote it: {quote}, and once more for the shell" if quote else _IN_FILE
    return Problem(where, rule=rule, got=short(value), remedy=remedy)


def _problems(text: str, override: Override) -> Iterator[Problem]:
    """Yield the Problems of a parsed value."""
    where, key = quoted(text), override.key_or_group
    hide, whole = is_secret(key), override.value()
    for value, levels in _inside(whole.list if isinstance(whole, ChoiceSweep) else whole, 0):
        if value is whole and override.is_sweep_override():
            continue
        if isinstance(value, Sweep | Glob):
            yield _sweep(text, override)
        elif levels > MAX_LEVELS:
            yield Problem(where, rule=f"lists and mappings are more than {MAX_LEVELS} deep inside each other")
        elif isinstance(value, dict):
            for name in value:
                if not isinstance(name, str):
                    yield _no_name(where, key, name)
        elif isinstance(value, str) and not is_unicode(value):
            yield Problem(where, rule="the value is not UTF-8 text")
        elif isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
            yield Problem(where, rule=f"a number has at most {MAX_DIGITS} digits")
        elif isinstance(value, float) and abs(value) == float("inf") and "inf" not in text.lower():
            yield Problem(
                where, rule="the number is too large", got=None if hide else short(text.partition("=")[2])
            )


def _inside(value: Any, levels: int) -> Iterator[tuple[Any, int]]:
    """The value and all that it holds, with the number of lists and mappings around each."""
    yield value, levels
    if levels <= MAX_LEVELS and isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _inside(inner, levels + 1)


def _no_name(where: str, key: str, name: object) -> Problem:
    got = ("null" if name is None else str(name).lower()) if _is_word(name) else str(name)
    remedy = f"write {key}.{got}=..." if _is_word(name) or isinstance(name, int) else _IN_FILE
    return Problem(where, rule="a key is text", got=got, remedy=remedy)


def _is_word(name: object) -> bool:
    return name is None or isinstance(name, bool)


def _sweep(text: str, override: Override) -> Problem:
    key, _, value = text.partition("=")
    fields, name = Fields(RunConfig, {}), tuple(override.key_or_group.split("."))
    ways = []
    if override.is_sweep_override() and not re.match(r"\s*\w+\s*\(", value):
        if fields.holds(name, str) and (quote := _in_quotes(key, value)) is not None:
            ways.append(f"quote text that holds commas: {quote}")
        if fields.holds(name, list, tuple):
            ways.append(f"write a list: {key}=[{value}]")
    ways = ways or ["give one value"]
    if override.is_sweep_override():
        ways.append("search over them with `raystack tune`")
    return Problem(quoted(text), rule="gives several values where one is expected", remedy=", or ".join(ways))


def _in_quotes(key: str, value: str) -> str | None:
    """`key='value'` where that means the very text of the value; None where neither quote does."""
    for quote in "'\"" if value.isprintable() else "":
        text = f"{key}={quote}{value}{quote}"
        if (override := _parsed(text)) is not None and override.value() == value:
            return text
    return None
