"""`${...}` -> values: what every key of a composed config finally is, and in plain words what could not be
followed.
"""

import re
from dataclasses import dataclass, field
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationToMissingValueError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from raystack.config.provenance import Key, Provenance
from raystack.errors import Problem, nearest


class Unresolved:
    """Stands where a value could not be found. Every type refuses it."""


def resolved(config: DictConfig, provenance: Provenance) -> tuple[dict[str, Any], list[Problem]]:
    """The values as plain dicts and lists, and the Problems of those that have none."""
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

    def mapping(self, node: DictConfig, key: Key, above: tuple[int, ...]) -> dict[str, Any]:
        return {str(name): self.child(node, name, (*key, str(name)), above) for name in node}

    def child(self, node: DictConfig | ListConfig, name: Any, key: Key, above: tuple[int, ...]) -> Any:
        """`above` holds the containers that lead here: meeting one of them again is a circle."""
        if OmegaConf.is_missing(node, name):
            return self.failed(key, "is marked ??? and has to be given", None, f"add {'.'.join(key)}=...")
        raw = str(cast(Any, OmegaConf.to_container(node, resolve=False))[name])
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
        return value

    def failed(self, key: Key, rule: str, got: str | None, remedy: str | None) -> Unresolved:
        self.found.append(Problem(self.provenance.where(key), rule=rule, got=got, remedy=remedy))
        return Unresolved()

    def circle(self, key: Key, raw: str) -> Unresolved:
        """Every key of a circle fails; it is told once."""
        if self.circular:
            return Unresolved()
        self.circular = True
        return self.failed(key, "refers back to itself", raw, "give one of the keys in the circle a value")

    def unfollowed(self, key: Key, raw: str, error: OmegaConfBaseException) -> Unresolved:
        text = str(error).splitlines()[0]
        if "Recursive interpolation" in text or "parent node" in text:
            return self.circle(key, raw)
        rule, name, remedy = self.words(text, error)
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
