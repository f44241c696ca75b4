"""The driver's side of a training: TrainPlan -> Outcome. It holds the run, trains, publishes, and leaves its
ending.

The driver alone talks to MLflow and to the terminal; rank 0 sends it events. Nothing heavy is imported before
the run is held: a place such as a Ray cluster is entered then, and the imports go on beside its start.
"""

from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace

from raystack import config as configs
from raystack.checkpoint import CheckpointStore
from raystack.checkpoint.fence import Fence
from raystack.config.target import Local
from raystack.errors import RaystackError, SupersededError
from raystack.events import Event, Listener, RayUp, Saved, Started, Warned
from raystack.outcome import Outcome
from raystack.plan import TrainPlan
from raystack.plan.naming import step_name
from raystack.runs import ending, lease
from raystack.storage import Storage
from raystack.training.driver.broadcast import Broadcast


def fit(
    plan: TrainPlan,
    listen: Listener,
    *,
    resume: bool,
    place: AbstractContextManager[str | None] | None = None,
) -> Outcome:
    """Train as planned, record it, register the result, and say where everything is.

    A run that has checkpoints goes on from the newest good one; `resume` says that it was expected to have
    one. The run is held for all of the time. `place` is entered for the training: a Ray, which gives the
    address of its dashboard if it has one; None: Ray is there already, or not needed. A listener that raises
    stops nothing: the Outcome has a note of it. Raises TrainingError, PlanError, LaunchError or ConfigError;
    PausedError where SIGTERM ended the run with a checkpoint. How it ended is left in the run's folder.
    """
    reached = _Reached(plan)
    tell = Broadcast({"the run's own record": reached, "the listener": listen})
    with lease.hold(plan.paths.folder, lambda text: tell(Warned(text))) as fence:
        try:
            with place or nullcontext() as dashboard:
                if dashboard is not None:
                    tell(RayUp(dashboard))
                outcome = _trained(plan, tell, fence, resume=resume)
            outcome = replace(outcome, links={**outcome.links, **_lasting(plan, dashboard)})
            ending.write(plan.paths.folder, ending.succeeded(outcome, fence.holder))
        except BaseException as error:
            _leave(error, reached.outcome(tell.notes), fence)
            raise
    return outcome


def _trained(plan: TrainPlan, tell: Broadcast, fence: Fence, *, resume: bool) -> Outcome:
    # Seconds of imports, which are made while Ray starts.
    from raystack.training.driver import publish, run

    if resume and not CheckpointStore(plan.paths.checkpoints).manifests():
        tell(Warned(f"{plan.run_id} has no checkpoint to go on from: it starts again from its beginning"))
    Storage(plan.paths.folder).write("config.yaml", configs.dump(plan.config))
    with publish.tracked(plan) as tracker:
        tell.add("MLflow's record", publish.recorder(tracker))
        finished = run.run(plan, tell, fence)
        fence.check()
        tell(finished)
        outcome = publish.publish(plan, finished, tracker)
    # A tracker's notes are complete when it has finished.
    return replace(outcome, links=tracker.links, notes=(*tracker.notes, *tell.notes))


def _lasting(plan: TrainPlan, dashboard: str | None) -> dict[str, str]:
    """The dashboard of a cluster that was joined; one that was started for the run is gone with it."""
    target = plan.config.target
    joined = isinstance(target, Local) and target.address is not None
    return {"dashboard": dashboard} if joined and dashboard is not None else {}


class _Reached:
    """How far the run has come, as its events say: what there is to tell of one that fails."""

    def __init__(self, plan: TrainPlan) -> None:
        self._plan, self._step = plan, 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self._step = event.first_step
        elif isinstance(event, Saved):
            self._step = event.step

    def outcome(self, notes: tuple[str, ...]) -> Outcome:
        """The newest checkpoint; none where the training did not come that far."""
        if not self._step:
            return Outcome(run_id=self._plan.run_id, notes=notes)
        folder = f"{self._plan.paths.checkpoints}/{step_name(self._step)}"
        return Outcome(run_id=self._plan.run_id, step=self._step, checkpoint=folder, notes=notes)


def _leave(error: BaseException, reached: Outcome, fence: Fence) -> None:
    """Write down how the run failed, unless another driver goes on with it. The error goes on its way."""
    if isinstance(error, SupersededError):
        return
    with suppress(RaystackError, OSError):
        fence.check()
        ending.write(fence.folder, ending.failed(error, reached, fence.holder))
