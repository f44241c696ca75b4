"""The driver's side of a study: TunePlan -> Outcome.

It holds the study's lease, and leaves how the study ended. What runs the trials is imported while Ray starts.
"""

from contextlib import AbstractContextManager, nullcontext, suppress
from importlib.util import find_spec

from raystack.checkpoint.fence import Fence
from raystack.errors import ConfigError, Problem, RaystackError, SupersededError
from raystack.events import Listener, RayUp, Warned
from raystack.outcome import Outcome
from raystack.plan import TunePlan
from raystack.runs import ending, lease
from raystack.trackers import require_libraries
from raystack.training.driver.broadcast import Broadcast
from raystack.tuning.record import StudyStore


def run_study(
    plan: TunePlan,
    listen: Listener,
    *,
    resume: bool,
    place: AbstractContextManager[str | None] | None = None,
) -> Outcome:
    """Run the study as planned, register its best model, and return where everything is.

    `resume` goes on with the study of that name, which has to be there; without it there must be none.
    `place` is entered for the trials, as in `fit`. Raises ConfigError, PlanError, LaunchError, TrainingError
    if too many trials fail, and PausedError if SIGTERM stopped it; the record stays in each case.
    """
    _require_libraries()
    require_libraries(plan.config.tracking)
    tell = Broadcast({"the listener": listen})
    store = StudyStore(plan.paths.folder)
    _refuse(plan, store, resume=resume)
    with lease.hold(plan.paths.folder, lambda text: tell(Warned(text))) as fence:
        try:
            with place or nullcontext() as dashboard:
                if dashboard is not None:
                    tell(RayUp(dashboard))
                from raystack.tuning.run import run  # takes seconds; Ray has started meanwhile

                outcome = run(plan, store, tell, fence)
            ending.write(fence.folder, ending.succeeded(outcome, fence.holder))
        except BaseException as error:
            _leave(error, plan, tell, fence)
            raise
    return outcome


def _require_libraries() -> None:
    for name in ("optuna", "plotly"):
        if find_spec(name) is None:
            rule, remedy = f"a study needs the package {name}", "pip install 'raystack-ml[tune]'"
            raise ConfigError(Problem("tuning", rule=rule, remedy=remedy))


def _refuse(plan: TunePlan, store: StudyStore, *, resume: bool) -> None:
    there = store.exists()
    if there:
        store.check(plan)
    if there and not resume:
        rule = "there is a study of that name"
        remedy = "go on with it by --resume, or give this one another tuning.name"
        raise ConfigError(Problem("tuning.name", rule=rule, got=plan.name, remedy=remedy))


def _leave(error: BaseException, plan: TunePlan, tell: Broadcast, fence: Fence) -> None:
    """Record how the study ended, unless another driver has taken it over."""
    if isinstance(error, SupersededError):
        return
    with suppress(RaystackError, OSError):
        fence.check()
        ending.write(
            fence.folder, ending.failed(error, Outcome(run_id=plan.name, notes=tell.notes), fence.holder)
        )
