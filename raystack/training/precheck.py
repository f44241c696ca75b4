"""What is certain to fail, said before anything starts. In: a TrainPlan. Out: nothing, or the error.

The workers check the same again, on their own devices and with the model in hand; here nothing heavy is
imported unless the plan asks for what may be refused.
"""

from types import FunctionType
from typing import Any

from raystack.code.loading import entry
from raystack.config.target import Local
from raystack.config.training import FSDP
from raystack.plan import TrainPlan
from raystack.training.blocks import nothing_to_recompute, nothing_to_wrap


def check(plan: TrainPlan) -> None:
    """Raise ConfigError or PlanError where this machine knows that the workers will."""
    _check_blocks(plan)
    target = plan.config.target
    here = plan.workers.inline or (isinstance(target, Local) and target.address is None)
    if plan.training.precision == "fp16" and plan.workers.device == "cpu" and here:
        from raystack.training.strategy.zero import check_precision

        check_precision("fp16", "cpu")


def _check_blocks(plan: TrainPlan) -> None:
    """A class that never says `blocks` makes no task that has them; what a function makes is seen where it is
    called.
    """
    training, task = plan.training, plan.config.task
    wraps = isinstance(training.strategy, FSDP) and training.strategy.wrap == "blocks"
    if task.folder is None or not (wraps or training.gradient_checkpointing):
        return
    if _may_have_blocks(entry(task)):
        return
    raise nothing_to_recompute() if training.gradient_checkpointing else nothing_to_wrap()


def _may_have_blocks(made: Any) -> bool:
    """Whether it is not certain that a task made by it has no `blocks`: they may be an attribute that is set
    when it is built.
    """
    if (
        not isinstance(made, type)
        or hasattr(made, "blocks")
        or hasattr(made, "__getattr__")
        or "__new__" in vars(made)
    ):
        return True
    builders = [vars(each).get("__init__") for each in made.__mro__]
    built = [builder.__code__.co_names for builder in builders if isinstance(builder, FunctionType)]
    fields = [vars(each).get("__annotations__", ()) for each in made.__mro__]
    return any("blocks" in names for names in (*built, *fields))
