"""Parameters that are not trained: for the whole run, or until a step. In: the config and the model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import nn

from raystack.config.optimizer import Frozen
from raystack.errors import ConfigError, Problem
from raystack.training.groups import matching

if TYPE_CHECKING:
    from raystack.training.strategy import Strategy


def freeze(model: nn.Module, config: Sequence[Frozen]) -> dict[str, int]:
    """Freeze what is not trained at all; return by name the steps from which on others are trained.

    What several entries match is frozen as long as the longest says. Raises ConfigError for an entry without
    a parameter.
    """
    until: dict[str, int] = {}
    parameters = dict(model.named_parameters())
    for number, entry in enumerate(config):
        for name in matching(f"training.freeze.{number}.match", entry.match, model):
            if entry.until_step is None:
                parameters[name].requires_grad_(False)
            else:
                until[name] = max(until.get(name, 0), entry.until_step)
    trained = [name for name, parameter in parameters.items() if parameter.requires_grad]
    if trained and all(name in until for name in trained):
        rule = "it leaves nothing to train in the first steps"
        raise ConfigError(
            Problem("training.freeze", rule=rule, remedy="leave out what is trained from the start")
        )
    return {name: until[name] for name in trained if name in until}


class Thaw:
    """Tells the strategy which parameters are frozen, at the steps where that changes."""

    def __init__(self, until: Mapping[str, int]) -> None:
        self._until = dict(until)
        self._frozen: frozenset[str] = frozenset()

    def begin(self, step: int, strategy: "Strategy") -> None:
        """Begin optimizer step `step`."""
        if not self._until:
            return
        frozen = frozenset(name for name, until in self._until.items() if step < until)
        if frozen != self._frozen:
            strategy.freeze(frozen)
        self._frozen = frozen
        if not frozen:
            self._until.clear()
