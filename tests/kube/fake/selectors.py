"""Label and field selectors: in goes their text, out comes whether an object matches."""

import re
from collections.abc import Callable
from typing import Any

from fake.kinds import Kind, Object
from fake.refusal import malformed

Match = Callable[[Object], bool]

_SET = re.compile(r"^\s*([^\s,!=()]+)\s+(in|notin)\s+\(([^)]*)\)\s*$")
_EQUAL = re.compile(r"^\s*([^\s,!=()]+)\s*(==|=|!=)\s*([^\s,!=()]*)\s*$")
_EXISTS = re.compile(r"^\s*(!?)\s*([^\s,!=()]+)\s*$")
_FIELDS = {
    "Pod": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
    ),
    "Event": ("involvedObject.", "reason", "reportingComponent", "source", "type"),
    "Secret": ("type",),
    "Job": ("status.successful",),
    "Namespace": ("status.phase",),
    "Node": ("spec.unschedulable",),
}


def labels(text: str) -> Match:
    """`a=b,c!=d,e in (f, g),!h`."""
    tests = [_label(part) for part in re.split(r",(?![^(]*\))", text) if part.strip()]
    return lambda obj: all(test(obj.get("metadata", {}).get("labels") or {}) for test in tests)


def fields(kind: Kind, text: str) -> Match:
    """`metadata.name=a,status.phase!=Running`, of the fields that the kind can be selected by."""
    tests: list[Match] = []
    for part in filter(None, text.split(",")):
        match = _EQUAL.match(part)
        if match is None:
            raise malformed(f"invalid selector: '{part}'; can't understand it")
        path, sign, wanted = match.groups()
        known = ("metadata.name", "metadata.namespace", *_FIELDS.get(kind.kind, ()))
        if not path.startswith(known):
            raise malformed(f"field label not supported: {path}")
        tests.append(_field(path, sign != "!=", wanted))
    return lambda obj: all(test(obj) for test in tests)


def _label(part: str) -> Callable[[dict[str, str]], bool]:
    if match := _SET.match(part):
        key, word, listed = match.groups()
        values = {value.strip() for value in listed.split(",")}
        return lambda has: (has.get(key) in values) == (word == "in")
    if match := _EQUAL.match(part):
        key, sign, value = match.groups()
        return lambda has: (has.get(key) == value) == (sign != "!=")
    if match := _EXISTS.match(part):
        missing, name = match.groups()
        return lambda has: (name in has) != bool(missing)
    raise malformed(f"unable to parse requirement: {part}")


def _field(path: str, equal: bool, wanted: str) -> Match:
    def test(obj: Object) -> bool:
        value: Any = obj
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return (("" if value is None else str(value)) == wanted) == equal

    return test
