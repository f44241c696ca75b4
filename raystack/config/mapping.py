"""A config that is not a file: a mapping with the keys of one, as a notebook or a program has it."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from raystack.config.compose import dump, load
from raystack.config.run import RunConfig
from raystack.config.sweeps import Sweeps
from raystack.errors import ConfigError

NAME = "config.yaml"


def from_mapping(
    values: Mapping[str, Any], overrides: Sequence[str] = (), *, sweeps: Sweeps = "refused"
) -> RunConfig:
    """The config with the keys of `values`, as if they stood in a file in the working directory.

    A `defaults` list chooses groups, and `sweeps` are searched, as in a file. Raises ConfigError as `load`
    does; a mistake in the mapping is named by its key.
    """
    text = yaml.dump(_with_folder(_plain(values)), Dumper=_Quoting, sort_keys=False)
    return _loaded(text, overrides, sweeps)


class _Quoting(yaml.SafeDumper):
    """Text in quotes, always: OmegaConf reads `1e3` as a number, which PyYAML writes for the text."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"')


_Quoting.add_representer(str, _Quoting.represent_str)


def override(config: RunConfig, overrides: Sequence[str], *, sweeps: Sweeps = "refused") -> RunConfig:
    """`config` with overrides in Hydra's grammar. Raises ConfigError."""
    return _loaded(dump(config), overrides, sweeps)


def loads(text: str) -> RunConfig:
    """The config in the text of a resolved one, as `dump` writes it. Raises ConfigError."""
    return _loaded(text, (), "refused")


def _loaded(text: str, overrides: Sequence[str], sweeps: Sweeps) -> RunConfig:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, NAME)
        file.write_text(text, encoding="utf-8")
        try:
            return load(file, overrides, sweeps=sweeps)
        except ConfigError as error:
            problems = [replace(each, where=each.where.replace(f"{folder}/", "")) for each in error.problems]
            raise ConfigError(problems) from None


def _plain(node: Any) -> Any:
    """Mappings, sequences and paths of any type as YAML has them."""
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_plain(value) for value in node]
    return str(node) if isinstance(node, Path) else node


def _with_folder(values: dict[str, Any]) -> dict[str, Any]:
    """A task's module lies in the working directory, and a relative folder starts there."""
    task, here = values.get("task"), Path.cwd()
    if not isinstance(task, dict) or not isinstance(task.get("entry"), str):
        return values
    folder = task.get("folder")
    module = task["entry"].partition(":")[0].partition(".")[0]
    if isinstance(folder, str):
        found: Path | None = here / Path(folder).expanduser()
    else:
        beside = (here / f"{module}.py", here / module / "__init__.py")
        found = here if any(path.is_file() for path in beside) else None
    return {**values, "task": {**task, "folder": None if found is None else str(found)}}
