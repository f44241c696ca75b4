"""YAML and overrides -> RunConfig: Hydra composes, pydantic checks, and each mistake is led back to its line.

The only file that sees a DictConfig. Three layers are merged, later over earlier: `base.yaml` (the environment), the
user's file with the groups in its defaults list, the overrides. A group is looked up beside the user's file first and
then among raystack's own.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from raystack.config.provenance import Layer, Provenance, yaml_problem
from raystack.config.run import RunConfig
from raystack.config.validation import problems
from raystack.errors import ConfigError, Problem, nearest

_PACKAGE = Path(__file__).parents[1]
GROUPS = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"
"""Folder of raystack's config groups: inside the installed package, or at the root of a checkout."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Compose the file at `path` with `overrides` (Hydra's grammar) and check every value.

    An override may set a key that the file does not mention (`training.clip_norm=1`) and choose a group that it does not
    list (`strategy=ddp`). Raises ConfigError with one Problem per mistake, all of them at once.
    """
    file = Path(path).absolute()
    if not file.is_file():
        raise ConfigError(_missing_file(file, str(path)))
    if (problem := yaml_problem(file)) is not None:
        raise ConfigError(problem)
    with initialize_config_dir(config_dir=str(file.parent), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        parsed = _parse(overrides)
        lines = [_input_line(override, file) for override in parsed]
        lines.append(f"hydra.searchpath=['file://{GROUPS}']")
        try:
            composed = compose(config_name=file.stem, overrides=lines)
            layers = list(_layers(loader, file, lines))
        except MissingConfigException as error:
            raise ConfigError(_missing_choice(error, file)) from None
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(Problem(str(path), rule=_first_line(error))) from None
    provenance = Provenance(parsed, layers)
    return _validate(_resolve(_over_base(composed), provenance), file, provenance)


def dump(config: RunConfig) -> str:
    """The resolved config as YAML; `load` gives back an equal value. Holds references to secrets, never secrets."""
    return yaml.safe_dump(_escape(config.model_dump(mode="json")), sort_keys=False, allow_unicode=True)


def _over_base(composed: DictConfig) -> DictConfig:
    """Lay the config over base.yaml; a section that is not a mapping stays as it is, for the schema to refuse."""
    base = OmegaConf.load(GROUPS / "base.yaml")
    for section in list(base):
        if section in composed and not OmegaConf.is_dict(OmegaConf.select(composed, section)):
            del base[section]
    return cast(DictConfig, OmegaConf.merge(base, composed))


def _validate(values: dict[str, Any], file: Path, provenance: Provenance) -> RunConfig:
    match values.get("task"):
        case {"entry": str(entry), **rest} as task if rest.get("folder") is None:
            module = entry.partition(":")[0].partition(".")[0]
            if (file.parent / f"{module}.py").is_file() or (file.parent / module / "__init__.py").is_file():
                task["folder"] = str(file.parent)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(problems(error, RunConfig, values, provenance)) from None


def _resolve(config: DictConfig, provenance: Provenance) -> dict[str, Any]:
    """Follow every `${...}`; all that cannot be followed are told at once."""
    found: list[Problem] = []

    def walk(node: Any, key: tuple[str, ...]) -> None:
        if OmegaConf.is_dict(node):
            for name in node:
                walk_child(node, name, (*key, str(name)))
        elif OmegaConf.is_list(node):
            for index in range(len(node)):
                walk_child(node, index, (*key, str(index)))

    def walk_child(node: Any, name: Any, key: tuple[str, ...]) -> None:
        if OmegaConf.is_missing(node, name):
            found.append(Problem(provenance.where(key), rule="is marked ??? and has to be given", remedy=f"add {'.'.join(key)}=..."))
            return
        try:
            child = node[name]
        except OmegaConfBaseException as error:
            raw = OmegaConf.to_container(node, resolve=False)
            assert isinstance(raw, (dict, list))
            found.append(Problem(provenance.where(key), rule=_first_line(error), got=str(raw[name])))
            return
        walk(child, key)

    walk(config, ())
    if found:
        raise ConfigError(found)
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


def _parse(overrides: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create()
    parsed, found = [], []
    for text in overrides:
        try:
            override = parser.parse_override(text)
            if override.is_sweep_override():
                raise HydraException("a single value is expected here, not a sweep; quote a value that holds commas")
        except HydraException as error:
            remedy = "write key=value, +key=value or ~key; quote values with spaces or brackets"
            found.append(Problem(f"override '{text}'", rule=_first_line(error), remedy=remedy))
        else:
            parsed.append(override)
    if found:
        raise ConfigError(found)
    return parsed


def _input_line(override: Override, file: Path) -> str:
    """Hydra asks for `+` where a key or group is not in the file yet; the schema tells typos apart, so this does not.

    A plain override of a group becomes an addition when the file's defaults do not list it, and one of a key is always a
    forced addition.
    """
    line = str(override.input_line)
    if override.is_delete() or override.is_add() or override.is_force_add():
        return line
    key = override.key_or_group
    if "." in key or not _is_group(key, file):
        return f"++{line}"
    listed = any(key in entry for entry in _defaults(file) if isinstance(entry, dict))
    return line if listed else f"+{line}"


def _is_group(key: str, file: Path) -> bool:
    return any((root / key).is_dir() for root in (file.parent, GROUPS))


def _defaults(file: Path) -> list[Any]:
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    defaults = document.get("defaults", []) if isinstance(document, dict) else []
    return defaults if isinstance(defaults, list) else []


def _layers(loader: ConfigLoader, file: Path, lines: list[str]) -> Iterator[Layer]:
    """The files that were merged, first to last, each with the key it was put under."""
    yield Layer(GROUPS / "base.yaml", ())
    for default in loader.compute_defaults_list(file.stem, lines, RunMode.RUN).defaults:
        if default.config_path is None or default.config_path.startswith(("hydra/", "_dummy")):
            continue
        for root in (file.parent, GROUPS):
            source = root / f"{default.config_path}.yaml"
            if source.is_file():
                yield Layer(source, tuple(part for part in (default.package or "").split(".") if part and part != "_global_"))
                break


def _missing_file(file: Path, asked: str) -> Problem:
    siblings = [path.name for path in file.parent.glob("*.y*ml")] if file.parent.is_dir() else []
    close = nearest(file.name, siblings)
    remedy = f"did you mean {file.parent / close}?" if close else "give the path of a YAML file"
    return Problem(asked, rule="there is no such config file", remedy=remedy)


def _missing_choice(error: MissingConfigException, file: Path) -> Problem:
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    options = sorted(error.options or {path.stem for root in (file.parent, GROUPS) for path in (root / group).glob("*.yaml")})
    close = nearest(choice, options)
    if not group:
        return Problem(str(file), rule="a config in its defaults list does not exist", got=choice)
    remedy = (f"did you mean '{close}'? " if close else "") + f"choices: {', '.join(options) or 'none: there is no such group'}"
    return Problem(f"{group}: {choice}", rule=f"there is no such choice in the group '{group}'", remedy=remedy)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _escape(node: Any) -> Any:
    """Undo interpolation syntax in plain strings, so that a value holding `${` is read back as it is."""
    match node:
        case dict():
            return {key: _escape(value) for key, value in node.items()}
        case list():
            return [_escape(value) for value in node]
        case str() if "${" in node:
            return node.replace("${", "\\${")
    return node
