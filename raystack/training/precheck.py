"""Checks before anything starts, for what is certain to fail. In: a TrainPlan. Out: nothing, or the error.

The workers check the same again, on their own devices and with the model. Here nothing heavy is imported
unless the plan has a setting that needs it.
"""

from types import FunctionType
from typing import Any

from raystack.code.loading import entry
from raystack.config.optimizer import Grouped
from raystack.config.strategy import FSDP
from raystack.config.target import Local
from raystack.plan import TrainPlan
from raystack.trackers import require_libraries
from raystack.training.blocks import nothing_to_decay, nothing_to_recompute, nothing_to_wrap


def check(plan: TrainPlan) -> None:
    """Raise ConfigError or PlanError if it is certain on this machine that the workers will."""
    _check_blocks(plan)
    require_libraries(plan.config.tracking)
    target = plan.config.target
    here = not plan.workers.on_ray or (isinstance(target, Local) and target.address is None)
    if plan.training.precision == "fp16" and plan.workers.device == "cpu" and here:
        from raystack.training.strategy.zero import check_precision

        check_precision("fp16", "cpu")


def _check_blocks(plan: TrainPlan) -> None:
    """Raise ConfigError if the plan needs blocks and the task's class cannot have them."""
    training, task = plan.training, plan.config.task
    wraps = isinstance(training.strategy, FSDP) and training.strategy.wrap == "blocks"
    decays = isinstance(training.optimizer, Grouped) and training.optimizer.layer_decay is not None
    if task.folder is None or not (wraps or decays or training.gradient_checkpointing):
        return
    if _may_have_blocks(entry(task)):
        return
    if decays:
        raise nothing_to_decay()
    raise nothing_to_recompute() if training.gradient_checkpointing else nothing_to_wrap()


def _may_have_blocks(made: Any) -> bool:
    """Return False only if it is certain that a task made by `made` has no `blocks`."""
    # What a function makes is known only where it is called.
    if (
        not isinstance(made, type)
        or hasattr(made, "blocks")
        or hasattr(made, "__getattr__")
        or "__new__" in vars(made)
    ):
        return True
    # `blocks` may be an attribute that __init__ sets, or a field of a dataclass.
    builders = [vars(each).get("__init__") for each in made.__mro__]
    built = [builder.__code__.co_names for builder in builders if isinstance(builder, FunctionType)]
    fields = [vars(each).get("__annotations__", ()) for each in made.__mro__]
    return any("blocks" in names for names in (*built, *fields))
