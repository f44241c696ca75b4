"""Several objectives in one step, such as those of a GAN: each has a loss, parameters and an optimizer.

In: the task's objectives. Out: a strategy and the passes of a step, which the loop uses as it uses those of
one loss. In a step the objectives take turns, in the order in which the task names them, on the same batches:
what one has updated, the next one sees.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from raystack.checkpoint.state import Shard, State
from raystack.code.loading import call
from raystack.config.optimizer import Optimizer, Own
from raystack.config.strategy import DDP
from raystack.errors import ConfigError, Problem
from raystack.plan import TrainPlan
from raystack.task import CountsTokens, HasObjectives, Objective
from raystack.training.groups import matching
from raystack.training.losses import Value
from raystack.training.own_optimizer import make_own
from raystack.training.passes import Passed, Passes
from raystack.training.resume import optimizer_name
from raystack.training.seeds import mixed
from raystack.training.strategy import MakeOptimizer
from raystack.training.strategy.ddp import DataParallel
from raystack.training.world import World

OWN = Own(kind="task")


class TakingTurns:
    """Strategies of the parts of one model, one of which computes and updates at a time."""

    def __init__(self, parts: Mapping[str, DataParallel], trained: Mapping[str, Sequence[str]]) -> None:
        self._parts = dict(parts)
        first = self._now = next(iter(parts.values()))
        self.module, self.bare = first.module, first.bare
        named = dict(self.bare.named_parameters())
        self._own = {name: [named[one] for one in names] for name, names in trained.items()}
        """Trained parameters of each objective."""
        self._names = [one for names in trained.values() for one in names]
        self.optimizer = first.optimizer

    def optimizers(self, objectives: Mapping[str, Objective], config: Optimizer) -> str:
        """Return the kinds of the optimizers, by objective."""
        kinds = (
            (name, optimizer_name(config if objectives[name].optimizer is None else OWN, part.optimizer))
            for name, part in self._parts.items()
        )
        return ", ".join(f"{name}: {kind}" for name, kind in kinds)

    def take_turn(self, name: str) -> None:
        """Have the parameters of an objective get gradients, and no others."""
        self._now = self._parts[name]
        for own, parameters in self._own.items():
            for parameter in parameters:
                parameter.requires_grad_(own == name)

    def autocast(self) -> AbstractContextManager[Any]:
        return self._now.autocast()

    def loss(self, function: Callable[[nn.Module, Any], Any], batch: Any) -> Any:
        return self._now.loss(function, batch)

    def micro_step(self, *, last: bool) -> AbstractContextManager[None]:
        return self._now.micro_step(last=last)

    def backward(self, loss: Tensor) -> None:
        self._now.backward(loss)

    def step(
        self,
        factor: float,
        clip_norm: float | None,
        *,
        clip_value: float | None = None,
        scale: Tensor | None = None,
        want_norm: bool,
    ) -> Tensor | None:
        return self._now.step(factor, clip_norm, clip_value=clip_value, scale=scale, want_norm=want_norm)

    def freeze(self, names: Set[str]) -> None:
        for part in self._parts.values():
            part.freeze(names)

    def communication_s(self) -> float | None:
        return self._now.communication_s()

    def weights(self) -> State:
        named = dict(self.bare.named_parameters())
        return {f"model/{name}": Shard.whole(named[name]) for name in self._names}

    def renew(self) -> None:
        """Do nothing: the weights that are computed with are the only ones."""

    def state(self) -> State:
        return {name: shard for part in self._parts.values() for name, shard in part.state().items()}

    def load(self, read: Callable[[State], Set[str]]) -> None:
        for part in self._parts.values():
            part.load(read)


class Rounds:
    """The passes of a step of several objectives."""

    def __init__(
        self,
        task: HasObjectives,
        strategy: TakingTurns,
        objectives: Mapping[str, Objective],
        batches: Iterator[Any],
        seed: int,
        passes: Callable[[Any, int, Iterator[Any]], Passes],
        update: Callable[[Passed], object],
    ) -> None:
        """`passes` makes those of one loss, of a task, a seed and batches; `update` ends a turn."""
        self._strategy, self._objectives, self._update = strategy, objectives, update
        self._replay = _Replay(batches)
        self._passes = {}
        for index, (name, objective) in enumerate(objectives.items()):
            # Only the first counts the tokens, and each draws random numbers of its own.
            tokens = task.tokens if isinstance(task, CountsTokens) and not index else _no_tokens
            own = _OneLoss(objective.loss, tokens)
            self._passes[name] = passes(own, mixed(seed, index) if index else seed, self._replay.again())

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the losses and of what they return beside themselves."""
        more = {name for passes in self._passes.values() for name in passes.names or ()}
        return (*self._objectives, *sorted(more - self._objectives.keys()))

    def first(self, step: int) -> tuple[Passed, float | None]:
        """Run the first step; return its floating point operations, too."""
        flops: list[float | None] = []

        def count(passes: Passes) -> Passed:
            passed, found = passes.first(step)
            flops.append(found)
            return passed

        passed = self._round(step, count)
        known = [one for one in flops if one is not None]
        # Steps in which not all take part have fewer, so that there is no number for all.
        alike = all(objective.every == 1 for objective in self._objectives.values())
        return passed, sum(known) if alike and len(known) == len(flops) else None

    def run(self, step: int) -> Passed:
        """Compute the gradients of a whole step; those of all turns but the last are applied already."""
        return self._round(step, lambda passes: passes.run(step))

    def _round(self, step: int, run: Callable[[Passes], Passed]) -> Passed:
        due = [name for name, objective in self._objectives.items() if step % objective.every == 0]
        self._replay.forget()
        passed: dict[str, Passed] = {}
        for name in due:
            self._strategy.take_turn(name)
            passed[name] = run(self._passes[name])
            if name != due[-1]:
                self._update(passed[name])
        return self._together(passed)

    def _together(self, passed: Mapping[str, Passed]) -> Passed:
        """Return the sum of the losses, each of which is a value beside it."""
        *_, last = passed.values()
        means = {name: self._passes[name].mean(each) for name, each in passed.items()}
        own: dict[str, Value] = {name: (mean, 1.0) for name, mean in means.items()}
        values = [(1, own), *(each for one in passed.values() for each in one.values)]
        nothing = dict.fromkeys(self.names, (0.0, 0.0))
        return replace(
            last,
            loss=torch.stack([*means.values()]).sum(),
            count=None,
            tokens=sum(each.tokens for each in passed.values()),
            values=[(samples, {**nothing, **given}) for samples, given in values],
        )


def build(
    task: HasObjectives,
    plan: TrainPlan,
    model: nn.Module,
    until: Mapping[str, int],
    make_optimizer: MakeOptimizer,
    world: World,
    folder: str | None,
) -> tuple[TakingTurns, Mapping[str, Objective]]:
    """Return the strategy of the task's objectives, and them; raise ConfigError if they cannot be trained.

    `make_optimizer` is for those without an optimizer of their own.
    """
    config = plan.training.strategy
    if not isinstance(config, DDP):
        rule = "each of several objectives needs its parameters whole"
        raise ConfigError(
            Problem("training.strategy.kind", rule=rule, got=config.kind, remedy="use strategy=ddp")
        )
    objectives: Mapping[str, Objective] = call("objectives", task.objectives, model, folder=folder)
    trained = _trained(objectives, model)
    named = dict(model.named_parameters())
    parts = {}
    for name, objective in objectives.items():
        for parameter in named.values():
            parameter.requires_grad_(False)
        for own in trained[name]:
            named[own].requires_grad_(True)
        make = make_optimizer
        if (function := objective.optimizer) is not None:
            make = _maker(function, plan, until, folder)
        parts[name] = DataParallel(config, plan.training.precision, model, make, world)
    strategy = TakingTurns(parts, trained)
    for parameter in named.values():
        parameter.requires_grad_(any(parameter is one for own in strategy._own.values() for one in own))
    return strategy, objectives


def _maker(
    function: Callable[..., Any], plan: TrainPlan, until: Mapping[str, int], folder: str | None
) -> MakeOptimizer:
    return lambda named: make_own(function, plan.training, until, folder, named)


def _trained(objectives: Mapping[str, Objective], model: nn.Module) -> dict[str, list[str]]:
    """Return the names of each objective's trained parameters."""
    if not objectives or not all(isinstance(one, Objective) for one in objectives.values()):
        raise _refused("it returns a mapping of names to raystack.task.Objective")
    if all(one.every != 1 for one in objectives.values()):
        raise _refused("one of them has to be trained in every step", "set every=1 for it")
    trained: dict[str, list[str]] = {}
    taken: dict[str, str] = {}
    for name, objective in objectives.items():
        found = _named(name, objective, model)
        trained[name] = [one for one, each in model.named_parameters() if one in found and each.requires_grad]
        if not trained[name]:
            raise _refused(f"'{name}' has no parameter that is trained")
        for one in trained[name]:
            if one in taken:
                raise _refused(f"'{taken[one]}' and '{name}' both train '{one}'")
            taken[one] = name
    left = [one for one, each in model.named_parameters() if each.requires_grad and one not in taken]
    if left:
        raise _refused(f"none of them trains '{left[0]}'", "freeze it, or give it to one of them")
    return trained


def _named(name: str, objective: Objective, model: nn.Module) -> set[str]:
    if isinstance(objective.parameters, nn.Module):
        own = set(objective.parameters.parameters())
        return {one for one, each in model.named_parameters() if each in own}
    match = objective.parameters
    return matching(f"task: objectives['{name}']", match if isinstance(match, str) else tuple(match), model)


@dataclass(frozen=True)
class _OneLoss:
    """A task as far as the passes of one objective need it."""

    loss: Callable[..., Any]
    tokens: Callable[[Any], int]


class _Replay:
    """The batches of a step, for one objective after the other."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches
        self._read: list[Any] = []
        self._step = 0

    def forget(self) -> None:
        """Begin the next step."""
        self._read.clear()
        self._step += 1

    def again(self) -> Iterator[Any]:
        """Yield the batches of each step from its first one on."""
        step, at = 0, 0
        while True:
            if step != self._step:
                step, at = self._step, 0
            if at == len(self._read):
                self._read.append(next(self._batches))
            at += 1
            yield self._read[at - 1]


def _no_tokens(batch: Any) -> int:
    return 0


def _refused(rule: str, remedy: str | None = None) -> ConfigError:
    return ConfigError(Problem("task: objectives", rule=rule, remedy=remedy))
