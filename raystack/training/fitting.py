"""Stored tensors -> those of a model, by name. In: a model on the CPU, tensors. Out: which were loaded."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from raystack.checkpoint.extra_state import resize_buffers
from raystack.checkpoint.model import Parameter
from raystack.config.initial import InitFrom
from raystack.errors import ConfigError, Problem, nearest

KEY = "training.init_from"
SHOWN = 3
"""Names in a message."""


@dataclass(frozen=True)
class Fitted:
    """Names of parameters and persistent buffers: of the model, and unused ones of the source."""

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        text = f"loaded {len(self.loaded)} of {len(self.loaded) + len(self.fresh)} tensors"
        text += f"; fresh: {some(self.fresh)}" if self.fresh else ""
        return text + (f"; not used: {some(self.unused)}" if self.unused else "")


def some(names: Iterable[str]) -> str:
    """Return the first names, and how many there are beside them."""
    first = list(names)
    more = len(first) - SHOWN
    return ", ".join(first[:SHOWN]) + (f" and {more} more" if more > 0 else "")


@torch.no_grad()
def fit(model: nn.Module, stored: Mapping[str, Tensor], config: InitFrom, where: str) -> Fitted:
    """Copy the `stored` tensors that the config wants into the model.

    Raises ConfigError, before anything is copied, if a pattern matches nothing or nothing would be loaded;
    if it is strict, also for what is missing, unknown or has another shape.
    """
    renamed = {_renamed(name, config.rename): tensor for name, tensor in stored.items()}
    names = _names(model)
    wanted = {first: every for first, every in names.items() if _wanted(every, config)}
    _check_patterns(config, [name for every in names.values() for name in every])
    found = {
        first: renamed[name] for first, every in wanted.items() for name in every[::-1] if name in renamed
    }
    if config.whole:  # as when the model is served: a buffer may have grown
        grown = {name for name, _ in model.named_buffers()} & found.keys()
        resize_buffers(model, {name: _described(found[name]) for name in grown})
    state = model.state_dict(keep_vars=True)
    misfits = [name for name, tensor in found.items() if tensor.shape != state[name].shape]
    known = {name for every in wanted.values() for name in every}
    unused = [name for name in renamed if name not in known]
    if config.strict:
        absent = [name for name in wanted if name not in found]
        unknown = [name for name in unused if _wanted([name], config)]
        _refuse(where, absent, unknown, [(name, found[name], state[name]) for name in misfits])
    loaded = [name for name in found if name not in misfits]
    if not loaded:
        remedy = f"it has {some(renamed)}; the model has {some(names)}"
        raise ConfigError(Problem(KEY, rule="nothing there fits the model", got=where, remedy=remedy))
    for name in loaded:
        state[name].copy_(found[name])
    fresh = [name for name in names if name not in loaded]
    return Fitted(tuple(loaded), tuple(fresh), tuple(unused))


def _described(tensor: Tensor) -> Parameter:
    return Parameter(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def _names(model: nn.Module) -> dict[str, list[str]]:
    """Return the names of each parameter and persistent buffer, several if it is tied, by its first one."""
    every: dict[int, list[str]] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor) and not name.endswith("_extra_state"):
            every.setdefault(id(value), []).append(name)
    return {names[0]: names for names in every.values()}


def _renamed(name: str, rename: Mapping[str, str]) -> str:
    for old, new in rename.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _patterns(config: InitFrom) -> tuple[str, ...]:
    match = config.match
    return (match,) if isinstance(match, str) else match or ("*",)


def _wanted(names: Iterable[str], config: InitFrom) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in _patterns(config))


def _check_patterns(config: InitFrom, names: list[str]) -> None:
    for pattern in _patterns(config):
        if not any(fnmatchcase(name, pattern) for name in names):
            close = nearest(pattern, names)
            remedy = f"did you mean '{close}'?" if close else f"the model has {some(names)}"
            rule = "matches no parameter or buffer of the model"
            raise ConfigError(Problem(f"{KEY}.match", rule=rule, got=pattern, remedy=remedy))


def _refuse(
    where: str, absent: list[str], unknown: list[str], misfits: list[tuple[str, Tensor, Tensor]]
) -> None:
    remedy = "choose by match, rename, or set strict: false"
    problems = []
    if absent:
        rule = f"{where} has not all that is to be loaded"
        problems.append(Problem(KEY, rule=rule, got=f"without {some(absent)}", remedy=remedy))
    if unknown:
        rule = f"{where} has what the model has not"
        problems.append(Problem(KEY, rule=rule, got=some(unknown), remedy=remedy))
    for name, there, here in misfits[:SHOWN]:
        rule = f"'{name}' has shape {list(there.shape)} there and {list(here.shape)} in the model"
        problems.append(Problem(KEY, rule=rule, got=where, remedy=remedy))
    if problems:
        raise ConfigError(problems)
