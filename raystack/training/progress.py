"""How far a run has come, as the task sees it in its loss and its hooks."""

from raystack.task import Progress
from raystack.training.data import BatchPlan


def progress_of(schedule: BatchPlan, length: int | None, step: int) -> Progress:
    """Return the progress after `step` steps over data with `length` samples in an epoch."""
    epoch = schedule.consumed(step) / length if length is not None else None
    return Progress(step, schedule.steps, epoch, step / schedule.steps)
