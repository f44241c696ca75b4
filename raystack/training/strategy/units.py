"""FSDP's units, the parts of a model that are gathered and freed together.

In: the config, the model and the task's blocks. Out: modules. The strategy wraps them, and the memory plan
counts them. Pure; the model may be on fake tensors.
"""

from collections.abc import Iterator, Sequence

from torch import nn

from raystack.config.strategy import FSDP
from raystack.errors import ConfigError, Problem
from raystack.training.blocks import nothing_to_wrap


def units(config: FSDP, model: nn.Module, blocks: Sequence[nn.Module]) -> list[nn.Module]:
    """Return the units, inner before outer; the rest is gathered with the whole model.

    Raises ConfigError if `wrap: blocks` is set and the blocks are missing or share parameters.
    """
    own = [block for block in blocks if next(block.parameters(), None) is not None]
    shared = _shared(model)
    # A parameter belongs to the unit that wraps it first; outside of that unit it would be found split.
    overlap = any(_reaches_out(block, shared) for block in own)
    match config.wrap:
        case "whole":
            return []
        case "blocks":
            _check_blocks(given=bool(blocks), overlap=overlap)
            return own
        case "auto" if own and not overlap:
            return own
    return [unit for unit in _large(model, config.wrap_mb << 20) if not _reaches_out(unit, shared)]


def _check_blocks(*, given: bool, overlap: bool) -> None:
    if not given:
        raise nothing_to_wrap()
    if overlap:
        rule = (
            "a block of the task shares a parameter with another part of the model, and cannot be gathered"
            " alone"
        )
        raise ConfigError(
            Problem(
                "training.strategy.wrap", rule=rule, got="blocks", remedy="set training.strategy.wrap=size"
            )
        )


def _large(module: nn.Module, least: int) -> Iterator[nn.Module]:
    """Yield the smallest modules below `module` that have at least `least` bytes of parameters."""
    for child in module.children():
        if sum(parameter.nbytes for parameter in child.parameters()) < least:
            continue
        inner = list(_large(child, least))
        yield from inner or _callable(child)


def _callable(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the module, or the members with parameters of a list of modules, however deep."""
    # FSDP gathers a unit in its forward pass, which a list of modules does not have.
    if not isinstance(module, nn.ModuleList | nn.ModuleDict):
        yield module
        return
    for child in module.children():
        if next(child.parameters(), None) is not None:
            yield from _callable(child)


def _shared(model: nn.Module) -> dict[nn.Parameter, set[nn.Module]]:
    """Return the parameters that several modules hold, such as tied embeddings, with their holders."""
    holders: dict[nn.Parameter, set[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            holders.setdefault(parameter, set()).add(module)
    return {parameter: modules for parameter, modules in holders.items() if len(modules) > 1}


def _reaches_out(unit: nn.Module, shared: dict[nn.Parameter, set[nn.Module]]) -> bool:
    inside = set(unit.modules())
    return any(parameter in shared and not shared[parameter] <= inside for parameter in unit.parameters())
