"""What is certain to fail, said before anything starts. In: a TrainPlan. Out: nothing, or the error.

The workers check the same again, on their own devices and with the model in hand; here nothing heavy is imported unless the plan
asks for what may be refused.
"""

from raystack.config.target import Local
from raystack.config.training import FSDP
from raystack.plan import TrainPlan
from raystack.task import entry


def check(plan: TrainPlan) -> None:
    """Raise ConfigError or PlanError where this machine knows that the workers will."""
    _check_blocks(plan)
    target = plan.config.target
    here = plan.workers.inline or (isinstance(target, Local) and target.address is None)
    if plan.training.precision == "fp16" and plan.workers.device == "cpu" and here:
        from raystack.training.strategy.zero import check_precision

        check_precision("fp16", "cpu")


def _check_blocks(plan: TrainPlan) -> None:
    """A class without `blocks` makes no task that has them; what a function makes is seen where it is called."""
    training, task = plan.training, plan.config.task
    wraps = isinstance(training.strategy, FSDP) and training.strategy.wrap == "blocks"
    if task.folder is None or not (wraps or training.gradient_checkpointing):
        return
    made = entry(task)
    if not isinstance(made, type) or hasattr(made, "blocks"):
        return
    if training.gradient_checkpointing:
        from raystack.training.recompute import no_blocks
    else:
        from raystack.training.strategy.units import no_blocks
    raise no_blocks()
