"""YAML and overrides -> RunConfig: Hydra composes, pydantic validates, and errors point to their line.

Only this module, sweeps.py and interpolation.py handle a DictConfig. Three layers are merged, later over
earlier: `base.yaml` (the environment), the user's file with the groups in its defaults list, and the
overrides. Without `_self_` in the list, the file takes precedence over its groups.
"""

import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
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
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException
from pydantic import ValidationError

from raystack.config.choices import GROUPS, HYDRA, Choices, Groups, choose
from raystack.config.fields import Fields
from raystack.config.groups import with_sections
from raystack.config.interpolation import resolved
from raystack.config.overrides import is_secret, parse, quoted
from raystack.config.provenance import Layer, Provenance, clash
from raystack.config.run import RunConfig
from raystack.config.source import file_problems, is_index, line_of, marked, relative, short
from raystack.config.sweeps import Sweeps, parse_sweeps, placed, places, search
from raystack.config.validation import problems
from raystack.errors import ConfigError, Problem, nearest

BASE = GROUPS / "base.yaml"
_hydra_is_global = threading.RLock()


def load(path: str | Path, overrides: Sequence[str] = (), *, sweeps: Sweeps = "refused") -> RunConfig:
    """Compose the file at `path` with `overrides` (Hydra's grammar) and validate every value.

    An override may set a key that the file does not contain (`training.clip_norm=1`) and choose a group that
    it does not list (`strategy=ddp`). With `sweeps` one that gives several values is searched. Raises
    ConfigError with one Problem per mistake, all at once. Invalid YAML and missing choices are reported on
    their own, because nothing can be composed from them.
    """
    try:
        config, groups = _load(path, overrides, sweeps)
        return with_sections(config, groups, lambda choice: _load(path, [*overrides, choice], sweeps)[0])
    except ConfigError as error:
        if sweeps == "refused":
            raise
        raise ConfigError(placed(error.problems, places(overrides))) from None


def _load(path: str | Path, overrides: Sequence[str], mode: Sweeps) -> tuple[RunConfig, Groups]:
    file = Path(path).absolute()
    no_file = _no_file(file, str(path))
    _refuse(file_problems(file) if no_file is None else [no_file])
    parsed, found = parse(overrides, sweeps=mode != "refused")
    choices = choose(file, [override for override in parsed if not override.is_sweep_override()])
    swept, wrong = parse_sweeps(parsed, choices.groups)
    _refuse([*found, *choices.problems, *wrong, *_hydra_keys(parsed)])
    lines = [*choices.lines, f"hydra.searchpath={_as_list(GROUPS)}"]
    with _hydra(file.parent) as loader:
        # Lazy: computing the defaults list again takes time, and only an error needs the layers.
        layers = cache(lambda: tuple(_layers(loader, file, lines, choices)))
        composed = _compose(file, lines, layers)
        provenance = Provenance(file, choices.keys, layers, GROUPS, BASE)
        config = _over_base(composed)
        found = _apply(config, choices.keys)
        if mode != "refused":
            search(config, swept, parsed, grid=mode == "grid")
        _leave_waiting(config, provenance)
        return _validate(config, provenance, found), choices.groups


def dump(config: RunConfig) -> str:
    """Return the resolved config as YAML, from which `load` restores an equal value.

    The YAML holds references to secrets, never the secrets themselves.
    """
    given = {name: section for name, section in config.model_dump().items() if section is not None}
    return OmegaConf.to_yaml(OmegaConf.create(_escape(given)))


def _refuse(found: Sequence[Problem]) -> None:
    if found:
        raise ConfigError(found)


@contextmanager
def _hydra(folder: Path) -> Iterator[ConfigLoader]:
    """Initialize Hydra with `folder` as its config folder, and restore the previous state afterwards."""
    # Hydra's state is global to the process, and the application may use Hydra itself.
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


def _compose(file: Path, lines: list[str], layers: Callable[[], Sequence[Layer]]) -> DictConfig:
    try:
        return compose(config_name=file.stem, overrides=lines)
    except yaml.MarkedYAMLError as error:
        name = error.problem_mark.name if error.problem_mark else str(file)
        raise ConfigError(marked(error, Path(name))) from None
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        if "raised while composing config" in text and (problem := clash(layers())) is not None:
            raise ConfigError(problem) from None
        named = re.match(r"In '?([^':]+)'?: ", text)
        at = next((path for path in _files(file, named[1] if named else "") if path.is_file()), file)
        where = f"{relative(at)}:{line_of(at, ('defaults',)) or 1}"
        rule = f"the defaults list cannot be composed: {text}"
        raise ConfigError(Problem(where, rule=rule)) from None


def _files(file: Path, name: str) -> list[Path]:
    """Return the possible paths of a config named by Hydra."""
    return [root / f"{name}.yaml" for root in (file.parent, GROUPS)]


def _over_base(composed: DictConfig) -> DictConfig:
    """Merge the config over base.yaml. An empty environment variable counts as not set."""
    base = cast(DictConfig, OmegaConf.load(BASE))
    for section in list(base):
        there = OmegaConf.select(composed, str(section), throw_on_resolution_failure=False)
        kind, key = base[section].get("kind"), f"{section}.kind"
        given = OmegaConf.select(composed, key, default=kind, throw_on_resolution_failure=False)
        if section in composed and (not OmegaConf.is_dict(there) or given != kind):
            # A section that is no mapping is left for the schema to reject. For another kind (of target, for
            # example) the keys of the base do not apply.
            del base[section]
            continue
        for name, raw in cast(dict[str, Any], OmegaConf.to_container(base[section])).items():
            found = re.match(r"\$\{oc\.env:(\w+),", str(raw))
            if found and os.environ.get(found[1]) == "":
                del base[section][name]
    merged = cast(DictConfig, OmegaConf.merge(base, composed))
    OmegaConf.set_struct(merged, False)
    return merged


def _apply(config: DictConfig, overrides: Sequence[Override]) -> list[Problem]:
    """Apply the overrides of keys to `config`, in order; keys may be new.

    Typos are found by the schema later.
    """
    return [problem for override in overrides if (problem := _apply_one(config, override)) is not None]


def _apply_one(config: DictConfig, override: Override) -> Problem | None:
    where, key, value = quoted(str(override.input_line)), override.key_or_group, override.value()
    head, _, name = key.rpartition(".")
    try:
        if (problem := _no_parent(config, where, key)) is not None:
            return problem
        parent = OmegaConf.select(config, head) if head else config
        raw = OmegaConf.to_container(parent, resolve=False) if OmegaConf.is_config(parent) else {}
        there = cast(dict[str, Any], raw if isinstance(raw, dict) else {})
        if override.is_delete():
            return _delete(parent, override, there)
        if override.is_add() and name in there and not isinstance(value, dict | list):
            rule, got = f"'{key}' is there already", None if is_secret(key) else short(str(there[name]))
            return Problem(where, rule=rule, got=got, remedy="drop the +")
        if isinstance(value, list) and isinstance(there.get(name), dict):
            return Problem(where, rule=f"'{key}' is a mapping of keys to values", got="a list")
        if isinstance(value, dict) and isinstance(there.get(name), list):
            return Problem(where, rule=f"'{key}' is a list", got="a mapping")
        OmegaConf.update(config, key, value, merge=True, force_add=True)
    except GrammarParseError:
        remedy = "write ${section.key} or ${oc.env:NAME}; a plain '${' is written \\${"
        return Problem(where, rule="the interpolation cannot be read", remedy=remedy)
    except (OmegaConfBaseException, ValueError, IndexError):
        return Problem(where, rule=f"'{head}' is no mapping that could hold '{name}'")
    return None


def _no_parent(config: DictConfig, where: str, key: str) -> Problem | None:
    """Return the Problem of a key whose parent is a plain value or lies beyond the end of a list."""
    names = key.split(".")
    for end in range(1, len(names)):
        holder, name = ".".join(names[:end]), names[end]
        node = OmegaConf.select(config, holder, throw_on_resolution_failure=False)
        if OmegaConf.is_list(node) and not (is_index(name) and int(name) < len(node)):
            rule = f"'{holder}' is a list with entries from 0 to {len(node) - 1}"
            return Problem(where, rule=rule, got=short(name), remedy=f"write the whole list: {holder}=[...]")
        if node is not None and not OmegaConf.is_config(node):
            rule = f"'{short(holder)}' is a plain value and holds no other keys"
            return Problem(where, rule=rule, got=None if is_secret(holder) else short(str(node)))
    return None


def _delete(parent: Any, override: Override, there: dict[str, Any]) -> Problem | None:
    where, key, value = quoted(str(override.input_line)), override.key_or_group, override.value()
    head, _, name = key.rpartition(".")
    if isinstance(parent, ListConfig):
        left = [entry for index, entry in enumerate(parent._iter_ex(resolve=False)) if index != int(name)]
        plain = all(isinstance(entry, int | float) or str(entry).isidentifier() for entry in left)
        remedy = f"write what is left of it: {head}=[{','.join(map(str, left)) if plain else '...'}]"
        return Problem(where, rule="an entry of a list cannot be deleted", remedy=remedy)
    if name not in there:
        return Problem(where, rule=f"there is no '{short(key)}' to delete")
    if value is not None and there[name] != value:
        rule, got = f"deletes '{key}' only where it is {short(str(value))}", short(str(there[name]))
        return Problem(where, rule=rule, got=None if is_secret(key) else got)
    del parent[name]
    return None


def _leave_waiting(config: DictConfig, provenance: Provenance) -> None:
    """Leave out what the file says of other targets: with `target=job` the keys of kuberay wait for it."""
    raw = OmegaConf.to_container(config, resolve=False)
    target = raw.get("target") if isinstance(raw, dict) else None
    if not isinstance(target, dict):
        return
    schema = Fields(RunConfig, {"target": target})
    known = schema.fields(("target",))
    for name in [str(name) for name in target if name not in known]:
        key = ("target", name)
        if schema.kinds_with(key) and provenance.waits(key):
            del config["target"][name]


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
    """Set `task.folder` if the module lies beside the config, and resolve a relative one from there."""
    match values.get("task"):
        case {"folder": str(folder)} if folder.strip():
            values["task"]["folder"] = os.path.normpath(beside / os.path.expanduser(folder))
        case {"entry": str(entry), **rest} if rest.get("folder") is None:
            module = entry.partition(":")[0].partition(".")[0]
            if any(os.path.isfile(beside / path) for path in (f"{module}.py", f"{module}/__init__.py")):
                values["task"]["folder"] = str(beside)


def _hydra_keys(overrides: Sequence[Override]) -> Iterator[Problem]:
    """Yield a Problem for each override of Hydra's own settings."""
    # Hydra would accept them silently, but they are not part of a RunConfig.
    for override in overrides:
        if "hydra" in (re.split(r"[./]", override.key_or_group)[0], (override.package or "").split(".")[0]):
            yield Problem(quoted(str(override.input_line)), rule=HYDRA, remedy="remove it")


def _layers(loader: ConfigLoader, file: Path, lines: list[str], choices: Choices) -> Iterator[Layer]:
    for default in loader.compute_defaults_list(file.stem, lines, RunMode.RUN).defaults:
        if default.config_path is None or default.config_path.startswith(("hydra/", "_dummy")):
            continue
        package = tuple(part for part in (default.package or "").split(".") if part and part != "_global_")
        source = next((path for path in _files(file, default.config_path) if path.is_file()), None)
        if source is not None:
            yield Layer(source, package, choices.places.get(source))


def _no_file(file: Path, config: str) -> Problem | None:
    """Return the Problem of a path that is not a config file, or None."""
    where = short(config) or "''"
    if os.path.isdir(file):
        inner = file / "config.yaml"
        remedy = f"did you mean {relative(inner)}?" if inner.is_file() else "give the path of a YAML file"
        return Problem(where, rule="this is a folder", remedy=remedy)
    if os.path.isfile(file):
        if file.suffix != ".yaml":
            rule, name = "the name of a config file ends in .yaml", f"{file.stem}.yaml"
        elif file.stem == "_self_" or not re.fullmatch(r"[^@:${}]+", file.stem):
            rule, name = "'@', ':', '$' and _self_ have meanings of their own in Hydra", "config.yaml"
        else:
            return None
        return Problem(where, rule=rule, remedy=f"rename it to {name}")
    if os.path.islink(file):
        rule = f"the link leads to {os.readlink(file)}, which is not there"
        return Problem(where, rule=rule, remedy="mend the link")
    there = [path.name for path in file.parent.glob("*.yaml") if path.is_file()]
    close = nearest(file.name, there)
    remedy = f"did you mean {relative(file.parent / close)}?" if close else "give the path of a YAML file"
    return Problem(where, rule="there is no such config file", remedy=remedy)


def _as_list(folder: Path) -> str:
    """Return a list with the folder as its only string, in the grammar of overrides."""
    text = f"file://{folder}".replace("'", "\\'")
    return f"['{text}']"


def _escape(node: Any) -> Any:
    """Escape interpolation syntax in plain strings, so that a value with `${` is read back unchanged."""
    match node:
        case dict():
            return {key: _escape(value) for key, value in node.items()}
        case list() | tuple():
            return [_escape(value) for value in node]
        case str():
            # OmegaConf reads a backslash before `${` as an escape, and two backslashes as one.
            return re.sub(r"(\\*)\$\{", r"\1\1\\${", node)
    return node
