"""Resolution of interpolations (`${...}`) in a composed config, and errors of those that fail."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationToMissingValueError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from raystack.config.fields import at
from raystack.config.provenance import Provenance, variable_of
from raystack.config.source import MAX_DIGITS, MAX_REPEATED, Key, dotted, is_unicode
from raystack.errors import ConfigError, Problem, nearest

MAX_CHAIN = 100
"""Limit of chained references between keys. OmegaConf fails at about 60."""


class Unresolved:
    """Placeholder of a value that could not be resolved, which every type rejects."""


def resolved(config: DictConfig, provenance: Provenance) -> tuple[dict[str, Any], list[Problem]]:
    """Return the values as plain dicts and lists, and a Problem for each unresolved one."""
    if (key := _Weights(OmegaConf.to_container(config, resolve=False)).too_heavy()) is not None:
        rule = f"interpolations stand for more than {MAX_REPEATED:,} values from here on"
        raise ConfigError(Problem(provenance.where(key), rule=rule, remedy="use fewer"))
    walk = _Walk(config, provenance)
    values = walk.mapping(config, (), (id(config),))
    return values, walk.found or walk.followers


@dataclass
class _Walk:
    config: DictConfig
    provenance: Provenance
    found: list[Problem] = field(default_factory=list)
    followers: list[Problem] = field(default_factory=list)
    """Of keys that lead to a key that fails itself: not told beside it."""
    circular: bool = False
    deep: bool = False

    def mapping(self, node: DictConfig, key: Key, above: tuple[int, ...]) -> dict[str, Any]:
        return {str(name): self.child(node, name, (*key, str(name)), above) for name in node}

    def child(self, node: DictConfig | ListConfig, name: Any, key: Key, above: tuple[int, ...]) -> Any:
        """`above` holds the containers that lead here: meeting one of them again is a circle."""
        if OmegaConf.is_missing(node, name):
            return self.failed(key, "is marked ??? and has to be given", None, f"add {dotted(key)}=...")
        raw = ""
        if OmegaConf.is_interpolation(node, name):
            raw = str(cast(Any, node._get_node(name))._value())
            if (variable := variable_of(raw)) is not None:
                self.provenance.variables[key] = variable
        try:
            value = node[name]
        except OmegaConfBaseException as error:
            return self.unfollowed(key, raw, error)
        if id(value) in above:
            return self.circle(key, raw)
        if isinstance(value, DictConfig):
            return self.mapping(value, key, (*above, id(value)))
        if isinstance(value, ListConfig):
            return [
                self.child(value, index, (*key, str(index)), (*above, id(value)))
                for index in range(len(value))
            ]
        if isinstance(value, str) and not is_unicode(value):
            return self.failed(key, "is not UTF-8 text", None, None)
        return value

    def failed(self, key: Key, rule: str, got: str | None, remedy: str | None) -> Unresolved:
        self.found.append(Problem(self.provenance.where(key), rule=rule, got=got, remedy=remedy))
        return Unresolved()

    def circle(self, key: Key, raw: str) -> Unresolved:
        """Every key of a circle fails; it is reported once."""
        if self.circular:
            return Unresolved()
        self.circular = True
        return self.failed(key, "refers back to itself", raw, "give one of the keys in the circle a value")

    def too_deep(self, key: Key, raw: str) -> Unresolved:
        """Every key of a long chain fails from the same one on; it is reported once."""
        if self.deep:
            return Unresolved()
        self.deep = True
        return self.failed(key, "refers on and on through other keys", raw, "refer to the value itself")

    def unfollowed(self, key: Key, raw: str, error: OmegaConfBaseException) -> Unresolved:
        text = str(error).splitlines()[0]
        if "Recursive interpolation" in text or "parent node" in text:
            return self.circle(key, raw)
        if "recursion depth" in text:
            return self.too_deep(key, raw)
        rule, name, remedy = self.words(text, error)
        if "Environment variable" in text and self.provenance.is_own(key):
            remedy = f"set it, or give {dotted(key)}=..."
        if name not in raw or isinstance(error, InterpolationToMissingValueError):
            self.followers.append(Problem(self.provenance.where(key), rule=rule, got=raw, remedy=remedy))
            return Unresolved()
        return self.failed(key, rule, raw, remedy)

    def words(self, text: str, error: OmegaConfBaseException) -> tuple[str, str, str | None]:
        """Rule, the name it is about, remedy. Where `${a}` leads to a key that fails itself, the name is not
        in `a`.
        """
        quoted = re.search(r"'([^']*)'", text)
        name = quoted[1] if quoted else ""
        if "Environment variable" in text:
            return (
                f"the environment variable {name} is not set",
                name,
                f"set it, or give a default: ${{oc.env:{name},value}}",
            )
        if isinstance(error, InterpolationKeyError):
            close = nearest(name, _dotted(self.config, ""))
            return (
                f"refers to '{name}', which the config does not set",
                name,
                f"did you mean '${{{close}}}'?" if close else None,
            )
        if isinstance(error, InterpolationToMissingValueError):
            name = text.rpartition(" ")[2]
            return f"refers to '{name}', which is marked ???", name, f"add {name}=..."
        if isinstance(error, UnsupportedInterpolationType):
            name = text.rpartition(" ")[2]
            return f"there is no resolver '{name}'", name, "write ${section.key} or ${oc.env:NAME}"
        if "Exceeds the limit" in text:
            return f"a number has at most {MAX_DIGITS} digits", "", None
        if text.startswith("GrammarParseError"):
            return "gives a resolver something that it cannot read", "", None
        if "is not a container" in text:
            return "refers to a key of what is no mapping", text, None
        if "HydraConfig" in text:
            return (
                "refers to Hydra's own settings, which have no part here",
                "",
                "write ${section.key} or ${oc.env:NAME}",
            )
        return f"cannot be worked out: {text.partition('resolving interpolation: ')[2] or text}", "", None


class _Weights:
    """How many values each value stands for when interpolations are followed. OmegaConf follows each of them
    anew, so that a few lines which refer to each other nine times a line would never end.
    """

    def __init__(self, raw: Any) -> None:
        self.raw, self.known = raw, dict[Key, int]()

    def too_heavy(self) -> Key | None:
        """The first key after which it is too much; None where it never is."""
        total = 0
        for key, text in _texts(self.raw, ()):
            total += self.weight(key, text, 0) if "${" in text else 0
            if total > MAX_REPEATED:
                return key
        return None

    def weight(self, key: Key, node: Any, levels: int) -> int:
        if isinstance(node, dict | list):
            inside = node.items() if isinstance(node, dict) else enumerate(node)
            return 1 + sum(self.weight((*key, str(name)), value, levels) for name, value in inside)
        if not isinstance(node, str) or "${" not in node or levels > MAX_CHAIN:
            return 1
        if key not in self.known:
            self.known[key] = 1  # for circles, which end by themselves
            total = 1
            for dots, name in re.findall(r"\$\{\s*(\.*)([^${}:\s.][^${}:\s]*)\s*\}", node):
                names = re.sub(r"\[(\w+)\]", r".\1", name).split(".")
                target = (*key[: len(key) - len(dots)], *names) if dots else tuple(names)
                total += self.weight(target, at(self.raw, target), levels + 1)
            self.known[key] = total
        return self.known[key]


def _texts(node: Any, key: Key) -> Iterator[tuple[Key, str]]:
    if isinstance(node, str):
        yield key, node
    elif isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _texts(value, (*key, str(name)))


def _dotted(node: Any, prefix: str) -> list[str]:
    """Every dotted key of a config."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        return []
    names = []
    for name in map(str, node):
        names.append(f"{prefix}{name}")
        if not OmegaConf.is_missing(node, name) and not OmegaConf.is_interpolation(node, name):
            names.extend(_dotted(node[name], f"{prefix}{name}."))
    return names
