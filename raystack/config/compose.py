"""YAML and overrides -> RunConfig: Hydra composes, pydantic checks, and each mistake is led back to its line.

Only this file and interpolation.py see a DictConfig. Three layers are merged, later over earlier: `base.yaml`
(the environment), the user's file with the groups in its defaults list, the overrides. Without `_self_` in
the list the file wins over its groups.
"""

import os
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobRuntime
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from raystack.config.choices import GROUPS, choose, parse
from raystack.config.interpolation import resolved
from raystack.config.provenance import (
    Layer,
    Provenance,
    file_problems,
    is_secret,
    line_of,
    marked,
    quoted,
    relative,
)
from raystack.config.run import RunConfig
from raystack.config.validation import problems
from raystack.errors import ConfigError, Problem, nearest

BASE = GROUPS / "base.yaml"
_hydra_is_global = threading.RLock()


def load(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Compose the file at `path` with `overrides` (Hydra's grammar) and check every value.

    An override may set a key that the file does not mention (`training.clip_norm=1`) and choose a group that
    it does not list (`strategy=ddp`). Raises ConfigError with one Problem per mistake, all of them at once; a
    file that is not YAML and a choice that does not exist come first, because nothing can be composed of
    them.
    """
    file = Path(path).absolute()
    _refuse(
        [_no_file(file, str(path))] if not file.is_file() or file.suffix != ".yaml" else file_problems(file)
    )
    parsed, found = parse(overrides)
    choices = choose(file, parsed)
    _refuse([*found, *choices.problems, *_hydra_keys(file, parsed)])
    lines = [*choices.lines, f"hydra.searchpath={_as_list(GROUPS)}"]
    with _hydra(file.parent) as loader:
        composed = _compose(file, lines)
        provenance = Provenance(file, parsed, cache(lambda: tuple(_layers(loader, file, lines))), BASE)
        config = _over_base(composed)
        found = _apply(config, choices.keys)
        return _validate(config, provenance, found)


def dump(config: RunConfig) -> str:
    """The resolved config as YAML; `load` gives back an equal value. Holds references to secrets, never
    secrets.
    """
    return OmegaConf.to_yaml(OmegaConf.create(_escape(config.model_dump(mode="json"))))


def _refuse(found: Sequence[Problem]) -> None:
    if found:
        raise ConfigError(found)


@contextmanager
def _hydra(folder: Path) -> Iterator[ConfigLoader]:
    """Hydra reading from `folder`. Hydra is one per process: what was there before, an app's own, is there
    again after.
    """
    with _hydra_is_global:
        instance, base, job = GlobalHydra.instance(), VersionBase.instance(), JobRuntime.instance()
        before = instance.hydra, base.version_base, job.get("name")
        instance.clear()
        try:
            with warnings.catch_warnings(), initialize_config_dir(config_dir=str(folder), version_base="1.3"):
                warnings.filterwarnings(
                    "ignore", message=".*Defaults list is missing `_self_`", category=UserWarning
                )
                yield GlobalHydra.instance().config_loader()
        finally:
            GlobalHydra.set_instance(instance)
            instance.hydra, base.version_base = before[:2]
            job.set("name", before[2])


def _compose(file: Path, lines: list[str]) -> DictConfig:
    try:
        return compose(config_name=file.stem, overrides=lines)
    except yaml.MarkedYAMLError as error:
        name = error.problem_mark.name if error.problem_mark else str(file)
        raise ConfigError(marked(error, Path(name))) from None
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        rule = f"the defaults list cannot be composed: {str(error).splitlines()[0]}"
        raise ConfigError(
            Problem(f"{relative(file)}:{line_of(file, ('defaults',)) or 1}", rule=rule)
        ) from None


def _over_base(composed: DictConfig) -> DictConfig:
    """Lay the config over base.yaml. A section that is not a mapping stays as it is, for the schema to
    refuse; and base.yaml says nothing about a section of another kind than its own.
    """
    base = cast(DictConfig, OmegaConf.load(BASE))
    for section in list(base):
        if section not in composed:
            continue
        there, kind = OmegaConf.select(composed, str(section)), base[section].get("kind")
        if not OmegaConf.is_dict(there) or there.get("kind", kind) != kind:
            del base[section]
    merged = cast(DictConfig, OmegaConf.merge(base, composed))
    OmegaConf.set_struct(merged, False)
    return merged


def _apply(config: DictConfig, overrides: Sequence[Override]) -> list[Problem]:
    """Change `config` by the overrides of keys, in their order. The schema tells typos apart, so a key may be
    new.
    """
    return [problem for override in overrides if (problem := _apply_one(config, override)) is not None]


def _apply_one(config: DictConfig, override: Override) -> Problem | None:
    where, key, value = quoted(str(override.input_line)), override.key_or_group, override.value()
    head, _, name = key.rpartition(".")
    try:
        for end in range(1, key.count(".") + 1):
            holder = ".".join(key.split(".")[:end])
            node = OmegaConf.select(config, holder, throw_on_resolution_failure=False)
            if node is not None and not OmegaConf.is_config(node):
                return Problem(
                    where, rule=f"'{holder}' is a plain value and holds no other keys", got=str(node)
                )
        parent = OmegaConf.select(config, head) if head else config
        there = (
            cast(dict[str, Any], OmegaConf.to_container(parent, resolve=False))
            if OmegaConf.is_dict(parent)
            else {}
        )
        exists = name in there
        if override.is_delete():
            if not exists:
                return Problem(where, rule=f"there is no '{key}' to delete")
            if value is not None and there[name] != value:
                return Problem(where, rule=f"deletes '{key}' only where it is {value}", got=str(there[name]))
            del parent[name]
            return None
        if override.is_add() and exists and not isinstance(value, dict | list):
            return Problem(
                where,
                rule=f"'{key}' is there already",
                got=None if is_secret(key) else str(there[name]),
                remedy="drop the +",
            )
        OmegaConf.update(config, key, value, merge=True, force_add=True)
    except (OmegaConfBaseException, ValueError, IndexError):
        return Problem(where, rule=f"'{head}' is no mapping that could hold '{name}'")
    return None


def _validate(config: DictConfig, provenance: Provenance, found: list[Problem]) -> RunConfig:
    values, unresolved = resolved(config, provenance)
    found += unresolved
    _find_task(values, provenance.file.parent)
    try:
        checked = RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError([*found, *problems(error, RunConfig, values, provenance)]) from None
    _refuse(found)
    return checked


def _find_task(values: dict[str, Any], beside: Path) -> None:
    """Fill in `task.folder` where the module lies beside the config, and let a relative one start there."""
    match values.get("task"):
        case {"folder": str(folder)}:
            values["task"]["folder"] = os.path.normpath(beside / os.path.expanduser(folder))
        case {"entry": str(entry), **rest} if rest.get("folder") is None:
            module = entry.partition(":")[0].partition(".")[0]
            if (beside / f"{module}.py").is_file() or (beside / module / "__init__.py").is_file():
                values["task"]["folder"] = str(beside)


def _hydra_keys(file: Path, overrides: Sequence[Override]) -> Iterator[Problem]:
    """Hydra's own settings are not part of a RunConfig, and Hydra would take them without a word."""
    rule = "Hydra's own settings have no effect here"
    if (line := line_of(file, ("hydra",))) is not None:
        yield Problem(f"{relative(file)}:{line}: hydra", rule=rule, remedy="remove them")
    for override in overrides:
        if override.key_or_group.partition(".")[0].partition("/")[0] == "hydra":
            yield Problem(quoted(str(override.input_line)), rule=rule, remedy="remove it")


def _layers(loader: ConfigLoader, file: Path, lines: list[str]) -> Iterator[Layer]:
    for default in loader.compute_defaults_list(file.stem, lines, RunMode.RUN).defaults:
        if default.config_path is None or default.config_path.startswith(("hydra/", "_dummy")):
            continue
        for root in (file.parent, GROUPS):
            source = root / f"{default.config_path}.yaml"
            if source.is_file():
                yield Layer(
                    source,
                    tuple(part for part in (default.package or "").split(".") if part and part != "_global_"),
                )
                break


def _no_file(file: Path, config: str) -> Problem:
    if file.is_dir():
        inner = file / "config.yaml"
        return Problem(
            config,
            rule="this is a folder",
            remedy=f"did you mean {relative(inner)}?" if inner.is_file() else "give the path of a YAML file",
        )
    if file.is_file():
        return Problem(
            config, rule="the name of a config file ends in .yaml", remedy=f"rename it to {file.stem}.yaml"
        )
    close = nearest(file.name, [path.name for path in file.parent.glob("*.yaml")])
    remedy = f"did you mean {relative(file.parent / close)}?" if close else "give the path of a YAML file"
    return Problem(config, rule="there is no such config file", remedy=remedy)


def _as_list(folder: Path) -> str:
    """A list with the folder as its one string, in the grammar of overrides."""
    text = f"file://{folder}".replace("'", "\\'")
    return f"['{text}']"


def _escape(node: Any) -> Any:
    """Undo interpolation syntax in plain strings, so that a value holding `${` is read back as it is.

    OmegaConf reads a backslash before `${` as an escape, and two as one.
    """
    match node:
        case dict():
            return {key: _escape(value) for key, value in node.items()}
        case list():
            return [_escape(value) for value in node]
        case str():
            return re.sub(r"(\\*)\$\{", r"\1\1\\${", node)
    return node
