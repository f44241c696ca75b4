# ruff: noqa: E501, T201 (tables; a script)
"""No config is a traceback: shipped configs with something broken in each.

`python tests/unit/config/test_mutants.py 2000` loads that many. The same number is the same mutant, always. A mutant is well when it loads, and what it resolves to loads back
equal, or when it is refused by a ConfigError that names a place.
"""

import contextlib
import os
import random
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from raystack.config import dump, load
from raystack.errors import ConfigError

ROOT = Path(__file__).parents[3]
SHIPPED = sorted([*ROOT.glob("examples/*/config.yaml"), ROOT / "kuberay" / "config.yaml"])
GROUPS = sorted(ROOT.glob("configs/*/*.yaml"))
SECONDS = 20

Break = Callable[[str, random.Random], bytes]
TOKENS = [
    "~", "null", "NO", "yes", "=", "<<", "010", "08", "1:30", "1_000", "1e999", "0x10", ".nan", "-.inf", "2026-01-01", "''", '" "',
    "!!set {a, b}", "!!binary aGk=", "!!timestamp 2026-01-01", "!!bool maybe", "!!int x", "!!float ''", "!!null x", "!!omap [a: 1]",
    "!!python/tuple [1]", "!x y", "!!str {a: b}", "!!map [1]", "{}", "[]", "{~: 1}", "{1: a}", "{[1]: a}", "{? a}", "[[[[]]]]", "???",
    "${", "${a", "${x.y}", "${.}", "${..}", "${oc.env:NOPE}", "${oc.env:HOME}", "${oc.decode:'{'}", "${oc.decode:'{1: 2}'}", "${nope:1}",
    "${oc.create:[1]}", "${hydra:run.dir}", "${experiment}", "${training}", "${oc.dict.keys:task}", "\\${", "\\", "a: b", "- x", "? x",
    "&a [*a]", "*nowhere", "&b {x: 1}", "|", ">-", "'", '"', "#", "%", "@", "`", "\t", "\x00", "\x07", "\x85", "\u2028", "\ufeff", "é🙂",
    '"\\ud800"', '"\\0"', "9" * 5000, "0x" + "f" * 5000, "n" * 5000, "[" * 70 + "]" * 70, "{a: " * 70 + "}" * 70, "models:/..@x", "/", "~nobody",
    "s3://", "://", "file://", "-1", "0", "1.5", "true", "on", "secret:env:NOPE", "_self_", "defaults", "hydra", "/dev/null", "..", "\r\n",
    "${experiment.name}" * 3, "${oc.env:HOME,${oc.env:HOME}}", "1.", "+1", "1e3", "0o7", "0b2", "--- a", "...", "%YAML 9", "!", "! a", "a" + " " * 300,
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, float("inf"), 10**30, "", " ", "x", "NO", "1", "${a}", [], {}, [None], [[]], {"a": None}, {None: 1}, {True: 1},
    {1: 1}, {(1, 2): 3}, {"": 1}, {"a.b": 1}, {"a=b": 1}, "n" * 5000, "\x00", "é", 2**70, b"bytes", {"kind": None}, {"kind": []}, {"kind": {}},
    {"kind": "x"}, ["x"] * 3, {"a": {"b": {"c": {"d": {}}}}}, "???", "s3://b", 1e-300, "a\nb", {"x" * 5000: 1}, [{"a": 1}, {"a": 1}],
]  # fmt: skip
LINES = [
    "defaults: [_self_, _self_]", "defaults: [nope]", "defaults: [resources: ~]", "defaults: [resources: [cpu1, cpu2]]", "defaults: {a: b}",
    "defaults: [resources@x: cpu1]", "defaults: [override resources: cpu1]", "defaults: [optional x: y]", "defaults: [tracking: off]", "defaults: [1]",
    "defaults: ['a@b@c']", "defaults: ['resources ': cpu1]", "defaults: [' ': cpu1]", "defaults: ['@x': y]", "defaults: [/: x]", "defaults: [hydra: x]",
    "defaults: [override hydra/launcher: basic]", "defaults: ['_self_@x']", "defaults: [resources: ???]", "defaults: [resources: '${x}']",
    "defaults: [resources: '${target}', target: local]", "defaults: [../x]", "defaults: [config]", "defaults: ['resources/cpu1']", "defaults: [strategy: [zero1]]",
    "# @package", "# @package a b", "# @package _global_", "# @package hydra", "# @author me", "hydra: {}", "<<: {a: 1}", "<<: 1", "? x", "- a", "~: 1", "a: &a [*a]",
    "a: &a [1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d]",
    "---", "...", "%TAG ! x", "experiment: {name: x}", "training: {<<: {steps: 1}}", "task: ${experiment}", "experiment: ${task}", "{", "]", "'",
]  # fmt: skip
OVERRIDES = [
    "{key}={token}", "{key}={token}", "+{key}={token}", "++{key}={token}", "~{key}", "~{key}={token}", "{key}.x={token}", "{key}.0={token}", "~{key}.0",
    "{key}=[{token}]", "{key}={{a: {token}}}", "{key}={{{token}: 1}}", "{key}=choice({token},2)", "{key}=", "{key}", "{token}=1", "{token}",
    "resources={token}", "~resources", "~resources={token}", "resources@{token}=cpu1", "resources@x=cpu1", "+resources@task.args.x=cpu1", "a/b={token}",
    "resources=[cpu1,{token}]", "strategy={token}", "hydra.run.dir={token}", "hydra/launcher=basic", "hydra@x=y", "{key}@x=1", "target={token}", "defaults={token}",
]  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A config in a folder of its own, and what is given beside it."""

    file: Path
    overrides: tuple[str, ...]
    about: str


def make(number: int, folder: Path) -> Mutant:
    """Write the mutant of this number into `folder`."""
    dice = random.Random(number)
    source = SHIPPED[number % len(SHIPPED)]
    text = source.read_text(encoding="utf-8")
    file = folder / "config.yaml"
    overrides: tuple[str, ...] = ()
    breaks: list[Break] = [_lines, _characters, _tokens, _structure, _structure, _bytes]
    kind = dice.randrange(len(breaks) + 2)
    if kind < len(breaks):
        file.write_bytes(breaks[kind](text, dice))
    elif kind == len(breaks):
        file.write_text(text, encoding="utf-8")
        overrides = tuple(_overrides(text, dice))
    else:
        overrides = _group(text, dice, folder)
    return Mutant(file, overrides, f"mutant {number} of {source.relative_to(ROOT)}, {overrides}"[:300])


def _lines(text: str, dice: random.Random) -> bytes:
    lines = text.splitlines()
    for _ in range(dice.randint(1, 2)):
        at = dice.randrange(len(lines))
        match dice.randrange(5):
            case 0:
                lines.insert(at, dice.choice(lines))
            case 1:
                del lines[at : at + dice.randint(1, 3)]
                lines = lines or [""]
            case 2:
                lines[at] = " " * dice.randint(0, 6) + lines[at].lstrip()
            case _:
                lines.insert(dice.choice([0, at, len(lines)]), dice.choice(LINES))
    return dice.choice(["\n", "\n", "\r\n", "\r"]).join(lines).encode()


def _characters(text: str, dice: random.Random) -> bytes:
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(text) + 1)
        new = dice.choice([*":,{}[]'\"#&*!|>%@`-? \t\n\x00\ufeff${}", ""])
        text = text[:at] + new + text[at + dice.choice([0, 1, 1, 5]) :]
    return text.encode()


def _tokens(text: str, dice: random.Random) -> bytes:
    """A word of the file, key or value, becomes another."""
    words = list(re.finditer(r"[^\s,:{}\[\]]+", text))
    for word in sorted(dice.sample(words, dice.randint(1, 2)), key=lambda word: -word.start()):
        text = text[: word.start()] + dice.choice(TOKENS) + text[word.end() :]
    return text.encode()


def _structure(text: str, dice: random.Random) -> bytes:
    """A value or a key anywhere in the tree becomes another."""
    values = yaml.safe_load(text)
    for _ in range(dice.randint(1, 3)):
        holder: Any = values
        name = dice.choice(list(holder))
        while isinstance(holder[name], dict | list) and holder[name] and dice.random() < 0.7:
            holder = holder[name]
            name = dice.choice(list(holder)) if isinstance(holder, dict) else dice.randrange(len(holder))
        match dice.randrange(5):
            case 0:
                del holder[name]
            case 1 if isinstance(holder, dict):
                holder[dice.choice([None, True, 1, 1.5, "", "x", "NO", "a.b", "n" * 5000, (1, 2)])] = (
                    holder.pop(name)
                )
            case 2:
                holder[name] = dice.choice([[holder[name]], {"x": holder[name]}])
            case _:
                holder[name] = dice.choice(VALUES)
        if not values:
            break
    dumper = yaml.SafeDumper if dice.random() < 0.9 else yaml.Dumper
    with contextlib.suppress(yaml.YAMLError):
        return yaml.dump(values, Dumper=dumper, allow_unicode=True, sort_keys=False).encode()
    return yaml.dump(values, sort_keys=False).encode()


def _bytes(text: str, dice: random.Random) -> bytes:
    data = bytearray(
        text.encode(dice.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]), errors="replace")
    )
    for _ in range(dice.randint(0, 3)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    return bytes(data[: dice.choice([len(data), len(data), dice.randrange(len(data))])])


def _overrides(text: str, dice: random.Random) -> list[str]:
    keys = [".".join(key) for key in _keys(yaml.safe_load(text), ())]
    return [
        dice.choice(OVERRIDES).format(key=dice.choice([*keys, "experiment.tags.x", "task.args.x"]), token=dice.choice(TOKENS))
        for _ in range(dice.randint(1, 3))
    ]  # fmt: skip


def _keys(node: Any, key: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if key:
        yield key
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _keys(value, (*key, str(name)))


def _group(text: str, dice: random.Random, folder: Path) -> tuple[str, ...]:
    """One's own group beside the config, broken."""
    shipped = dice.choice(GROUPS)
    own = folder / shipped.parent.name / "mine.yaml"
    own.parent.mkdir()
    breaks: list[Break] = [_lines, _characters, _tokens, _bytes]
    match dice.randrange(12):
        case 0:
            own.mkdir()
        case 1:
            own.symlink_to("nowhere.yaml")
        case _:
            own.write_bytes(dice.choice(breaks)(shipped.read_text(encoding="utf-8"), dice))
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    return (f"{shipped.parent.name}=mine",)


def ill(mutant: Mutant) -> str | None:
    """What is wrong with how the mutant was taken; None where it is well."""
    try:
        with _in_time():
            config = load(mutant.file, mutant.overrides)
            again = mutant.file.with_name("resolved.yaml")
            again.write_text(dump(config), encoding="utf-8")
            # By its text, because NaN is not equal to itself.
            same = repr(load(again)) == repr(config)
            return None if same else "what it resolves to does not load back equal"
    except ConfigError as error:
        return next(
            (bad for problem in error.problems if (bad := _unclear(mutant, problem)) is not None), None
        )
    except BaseException:
        return traceback.format_exc()


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def _unclear(mutant: Mutant, problem: Any) -> str | None:
    """Why a problem is of no use: it does not say where, or says nothing."""
    text = str(problem)
    found = re.match(r"(?P<file>[^:]+?\.yaml)(:(?P<line>\d+))?(: |, from the environment|$)", problem.where)
    if found and not (path := Path(found["file"])).is_file():
        return f"names {path}, which is not there: {text}"
    if found and found["line"]:
        lines = Path(found["file"]).read_bytes().decode(errors="replace").splitlines()
        if int(found["line"]) > len(lines) + 1:
            return f"names a line that is not there: {text}"
    if not found and not problem.where.startswith(("override '", "environment variable ")):
        return f"names no place: {text[:300]}"
    if len(text) > 1000 or re.search(r"Traceback|Error\b|should be  |: $|\n", text) or not problem.rule:
        return f"is no plain line: {text[:1200]}"
    return None


def check(first: int, last: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for number in range(first, last):
        own = folder / str(number)
        own.mkdir()
        monkeypatch.chdir(own)
        mutant = make(number, own)
        if (wrong := ill(mutant)) is not None:
            found[mutant.about] = wrong
    assert found == {}


@pytest.mark.slow
def test_mutants_of_the_shipped_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(0, 60, tmp_path, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("first", range(60, 2060, 100))
def test_two_thousand_mutants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    check(first, first + 100, tmp_path, monkeypatch)


def main(first: int, last: int) -> int:
    """Load the mutants of these numbers; say what is ill."""
    bad = refused = 0
    for number in range(first, last):
        with tempfile.TemporaryDirectory() as name:
            os.chdir(name)
            mutant = make(number, Path(name))
            wrong = ill(mutant)
            refused += not Path("resolved.yaml").exists()
            os.chdir(ROOT)
        if wrong is not None:
            bad += 1
            print(f"{mutant.about}\n    {wrong}", flush=True)
    print(f"{last - first} mutants, {refused} refused, {bad} ill")
    return bad


if __name__ == "__main__":
    counts = [int(each) for each in sys.argv[1:]] or [2000]
    sys.exit(min(1, main(*(counts if len(counts) > 1 else [0, counts[0]]))))
