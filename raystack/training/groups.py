"""How each parameter is trained: its part of the learning rate, its weight decay, from which step on.

In: the config, the task's model on the CPU, and its blocks. Out: a Setting by name, and the parameter groups
that they come to. The names are those of the checkpoint.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import chain

from torch import nn

from raystack.config.optimizer import BuiltIn, Globs, Muon, Own
from raystack.config.training import Training
from raystack.errors import ConfigError, Problem, nearest
from raystack.training.blocks import nothing_to_decay


@dataclass(frozen=True)
class Setting:
    """How one parameter is trained."""

    lr_scale: float
    """Its peak learning rate, as a fraction of the optimizer's."""
    weight_decay: float
    until: int = 0
    """First optimizer step that trains it, from 0."""
    by_adamw: bool = False
    """Whether AdamW updates it in the place of Muon."""


def settings_of(
    training: Training, model: nn.Module, blocks: Sequence[nn.Module], until: Mapping[str, int]
) -> dict[str, Setting]:
    """Return the setting of each trained parameter; `until` has the steps of those that are frozen at first.

    Raises ConfigError for a group that has no parameter, and for layer-wise decay without blocks.
    """
    optimizer = training.optimizer
    assert not isinstance(optimizer, Own), "it makes its own groups"
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    settings = {
        name: replace(_default(optimizer, one), until=until.get(name, 0)) for name, one in trained.items()
    }
    if optimizer.layer_decay is not None:
        for name, scale in _layers(model, blocks, optimizer.layer_decay):
            if name in settings:
                settings[name] = replace(settings[name], lr_scale=scale)
    if isinstance(optimizer, Muon):
        for name in _not_muons(optimizer, model) & trained.keys():
            settings[name] = replace(settings[name], by_adamw=True)
    left = set(trained)
    for number, group in enumerate(optimizer.groups):
        where = f"training.optimizer.groups.{number}.match"
        names = left.intersection(*[matching(where, group.match, model)])
        if not names:
            rule = "all that it matches is frozen, or has an earlier group"
            raise ConfigError(Problem(where, rule=rule, got=_text(group.match)))
        left -= names
        for name in names:
            ours = settings[name]
            decay = ours.weight_decay if group.weight_decay is None else group.weight_decay
            settings[name] = replace(ours, lr_scale=ours.lr_scale * group.lr_scale, weight_decay=decay)
    return settings


def matching(where: str, match: Globs, model: nn.Module) -> set[str]:
    """Return the names of the parameters that `match` has a pattern for, by any name of a tied one.

    Raises ConfigError for a pattern without any, with the nearest name.
    """
    first: dict[nn.Parameter, str] = {}
    names = {
        name: first.setdefault(parameter, name)
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }
    found = set()
    for pattern in (match,) if isinstance(match, str) else match:
        matched = {own for name, own in names.items() if fnmatchcase(name, pattern)}
        if not matched:
            rule, remedy = "no parameter has such a name", _remedy(pattern, names)
            raise ConfigError(Problem(where, rule=rule, got=pattern, remedy=remedy))
        found |= matched
    return found


def grouped(
    config: BuiltIn, trainable: Sequence[tuple[str, nn.Parameter]], settings: Mapping[str, Setting]
) -> list[tuple[Setting, list[nn.Parameter]]]:
    """Return the parameters that have one setting together, those of two or more dimensions first."""
    groups: dict[tuple[bool, Setting], list[nn.Parameter]] = {}
    for name, parameter in sorted(trainable, key=lambda each: each[1].dim() < 2):
        setting = settings.get(name) or _default(config, parameter)
        groups.setdefault((parameter.dim() < 2, setting), []).append(parameter)
    return [(setting, parameters) for (_, setting), parameters in groups.items()]


def _default(config: BuiltIn, parameter: nn.Parameter) -> Setting:
    # Biases and norms, which have one dimension, are not decayed.
    decay = config.weight_decay if parameter.dim() >= 2 else 0.0
    return Setting(1.0, decay, by_adamw=isinstance(config, Muon) and parameter.dim() != 2)


def _not_muons(optimizer: Muon, model: nn.Module) -> set[str]:
    """Return the names of matrices that AdamW updates: those of embeddings, and those in the config."""
    held = {one.weight for one in model.modules() if isinstance(one, nn.Embedding | nn.EmbeddingBag)}
    names = {name for name, parameter in model.named_parameters() if parameter in held}
    if optimizer.adamw is None:
        return names
    return names | matching("training.optimizer.adamw", optimizer.adamw, model)


def _layers(model: nn.Module, blocks: Sequence[nn.Module], decay: float) -> Iterator[tuple[str, float]]:
    """Yield the part of the rate that each parameter has by its depth.

    The depths are those of https://github.com/microsoft/unilm/blob/master/beit/optim_factory.py: 0 before the
    blocks, i + 1 in block i, and n + 1 after them. Between two blocks it is that of the one before.
    """
    if not blocks:
        raise nothing_to_decay()
    held = dict(
        reversed([(one, number) for number, block in enumerate(blocks) for one in block.parameters()])
    )
    begun = 0
    for name, parameter in model.named_parameters():
        inside = held.get(parameter)
        begun = begun if inside is None else max(begun, inside + 1)
        depth = begun if begun < len(blocks) else len(blocks) + 1
        yield name, decay ** (len(blocks) + 1 - (depth if inside is None else inside + 1))


def _remedy(pattern: str, names: Mapping[str, str]) -> str:
    close = nearest(pattern.strip("*."), [*_parents(names), *names])
    if close is not None:
        return f"did you mean '{close}'?" if close in names else f"did you mean '{close}.*'?"
    return f"the names are {', '.join(list(names)[:3])}{', ...' if len(names) > 3 else ''}"


def _parents(names: Mapping[str, str]) -> set[str]:
    """Return the modules that hold the parameters."""
    return set(chain.from_iterable(_above(name) for name in names))


def _above(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _text(match: Globs) -> str:
    return match if isinstance(match, str) else ", ".join(match)
