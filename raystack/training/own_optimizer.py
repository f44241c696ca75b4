"""The optimizer that the task makes, checked before the first step.

In: the task, and the trained parameters by name. Out: its optimizer, or a ConfigError that says what a
strategy or a checkpoint cannot have. What it does is tried on small parameters of the same names, three steps
long: it costs no memory, and leaves no state in the real one.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from raystack.code.loading import call
from raystack.config.optimizer import AdamW, Own
from raystack.config.strategy import DDP, Zero
from raystack.config.training import Training
from raystack.errors import ConfigError, Problem
from raystack.plan import TrainPlan
from raystack.plan.deepspeed import plan_deepspeed
from raystack.plan.optimizer import check_optimizer
from raystack.task import MakesOptimizer, Task
from raystack.training.optimizer import NUMBERS

SIDE = 4
"""Largest size of a small parameter in any dimension."""
Named = list[tuple[str, nn.Parameter]]


def decided(plan: TrainPlan, task: Task) -> TrainPlan:
    """Return the plan with the optimizer of the task, if it makes one; raise ConfigError for two of them."""
    config = plan.training.optimizer
    if not isinstance(task, MakesOptimizer):
        if isinstance(config, Own):
            rule, remedy = "the task makes none", "give it a method optimizer(parameters)"
            raise ConfigError(Problem("training.optimizer.kind", rule=rule, got="task", remedy=remedy))
        return plan
    if config not in (AdamW(), Own(kind="task")):
        rule, remedy = "the task makes its own optimizer", "drop training.optimizer, or the task's method"
        raise ConfigError(Problem("training.optimizer", rule=rule, got=config.kind, remedy=remedy))
    training = plan.training.model_copy(update={"optimizer": Own(kind="task")})
    check_optimizer(training)
    if not isinstance(training.strategy, Zero):
        return replace(plan, training=training)
    json = plan_deepspeed(training.strategy, training, plan.batch, plan.workers)
    return replace(plan, training=training, deepspeed=json)


def make_own(
    function: Callable[[Named], Any],
    training: Training,
    until: Mapping[str, int],
    folder: str | None,
    named: Iterable[tuple[str, nn.Parameter]],
) -> torch.optim.Optimizer:
    """Return what the task's `function` makes of the trained ones of `named`.

    Raises ConfigError if it cannot be had.
    """
    trained = [(name, parameter) for name, parameter in named if parameter.requires_grad]

    def make(parameters: Named) -> torch.optim.Optimizer:
        made = call("optimizer", function, parameters, folder=folder)
        _check(made, parameters)
        return made  # type: ignore[no-any-return]

    strategy = training.strategy
    whole = isinstance(strategy, DDP) or (isinstance(strategy, Zero) and strategy.stage == 0)
    _try(make, trained, whole=whole, kind=strategy.kind)
    made = make(trained)
    _split(made, {parameter: until[name] for name, parameter in trained if name in until})
    return made


def _check(made: Any, parameters: Named) -> None:
    if not isinstance(made, torch.optim.Optimizer):
        raise _refused("it returns a torch.optim.Optimizer", got=type(made).__name__)
    closure = inspect.signature(made.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise _refused("its step needs a closure, and the loop has computed the gradients before it")
    given = {parameter: name for name, parameter in parameters}
    held = {parameter for group in made.param_groups for parameter in group["params"]}
    if not held <= given.keys():
        raise _refused("it trains a tensor that is none of the parameters that it was given")
    left = [name for parameter, name in given.items() if parameter not in held]
    if left:
        remedy = "give it all parameters, or freeze the others with training.freeze"
        raise _refused(f"it leaves out '{left[0]}'", remedy)


def _try(make: Callable[[Named], torch.optim.Optimizer], trained: Named, *, whole: bool, kind: str) -> None:
    """Refuse what a checkpoint cannot hold, and, unless tensors stay `whole`, what needs them whole."""
    with torch.random.fork_rng(devices=[]):
        first = _small(trained)
        made = make(first)
        before = [_plain(group) for group in made.param_groups]
        try:
            _run(made, [parameter for _, parameter in first])
        except Exception as error:  # whatever it raises, such as of gradients that are not sparse
            if whole:
                return
            rule = f"{kind} needs to know what it does, and it could not be tried: {error}"
            raise _refused(rule, "use strategy=ddp", got=type(made).__name__) from error
        for group, values in zip(made.param_groups, before, strict=True):
            changed = [key for key, value in _plain(group).items() if values.get(key) != value]
            if changed:
                raise _refused(f"its groups have state ('{changed[0]}'), which a checkpoint does not hold")
        for state in made.state.values():
            for key, value in state.items():
                if not (value is None or isinstance(value, (Tensor, *NUMBERS))):
                    rule = f"its state has '{key}', which a checkpoint cannot hold"
                    raise _refused(rule, "keep tensors and numbers", got=type(value).__name__)
        if not whole and not _element_wise(make, trained, [one for _, one in first]):
            rule = f"{kind} splits tensors, and this optimizer updates an element by others or by its place"
            raise _refused(rule, "use strategy=ddp", got=type(made).__name__)


def _element_wise(
    make: Callable[[Named], torch.optim.Optimizer], trained: Named, expected: list[nn.Parameter]
) -> bool:
    """Return whether halves of the flat parameters are trained as the whole ones were."""
    second = _small(trained)
    made = make(second)
    halves: dict[nn.Parameter, list[nn.Parameter]] = {
        one: [nn.Parameter(half.clone()) for half in one.detach().view(-1).chunk(2)] for _, one in second
    }
    for group in made.param_groups:
        group["params"] = [half for one in group["params"] for half in halves[one]]
    try:
        _run(made, [one for _, one in second], halves)
    except Exception:  # whatever the optimizer raises about parameters that it did not make
        return False
    return all(
        torch.allclose(torch.cat(list(halves[one])), one_expected.detach().view(-1), rtol=1e-4, atol=1e-6)
        for (_, one), one_expected in zip(second, expected, strict=True)
    )


def _small(trained: Named) -> Named:
    """Return small parameters with the names, dimensions and attributes of the trained ones."""
    torch.manual_seed(0)
    made = []
    for name, parameter in trained:
        small = nn.Parameter(torch.randn([min(size, SIDE) for size in parameter.shape]).to(parameter.dtype))
        small.__dict__.update(parameter.__dict__)
        made.append((name, small))
    return made


def _run(
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    halves: Mapping[nn.Parameter, list[nn.Parameter]] | None = None,
) -> None:
    """Make three steps with gradients that are the same in each call."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        for parameter in parameters:
            gradient = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
            if halves is None:
                parameter.grad = gradient
                continue
            for half, part in zip(halves[parameter], gradient.view(-1).chunk(2), strict=True):
                half.grad = part
        optimizer.step()


def _plain(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a group that can be compared."""
    return {key: value for key, value in group.items() if isinstance(value, NUMBERS)}


def _split(made: torch.optim.Optimizer, until: Mapping[nn.Parameter, int]) -> None:
    """Put parameters that are frozen until different steps into different groups."""
    if not until:
        return
    for group in list(made.param_groups):
        steps: dict[int, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            steps.setdefault(until.get(parameter, 0), []).append(parameter)
        group["params"], *others = steps.values()
        for parameters in others:
            made.add_param_group({**group, "params": parameters})


def _refused(rule: str, remedy: str | None = None, got: str | None = None) -> ConfigError:
    return ConfigError(Problem("task: optimizer", rule=rule, got=got, remedy=remedy))
