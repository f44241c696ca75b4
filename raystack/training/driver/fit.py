"""The driver's side of a training: TrainPlan -> Outcome.

It holds the run's lease, trains, publishes, and records how the run ended. Only the driver talks to MLflow
and to the terminal; rank 0 sends it events. Heavy imports are made after the lease is taken, while Ray
starts.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial

from raystack import config as configs
from raystack.checkpoint import CheckpointStore
from raystack.checkpoint.fence import Fence
from raystack.config.target import Local
from raystack.errors import PausedError, RaystackError, SupersededError
from raystack.events import Finished, Listener, RayUp, Warned
from raystack.outcome import Outcome
from raystack.plan import TrainPlan
from raystack.runs import ending, lease
from raystack.storage import Storage
from raystack.training.driver.broadcast import Broadcast
from raystack.training.driver.keeper import Keeper
from raystack.training.driver.meter import Meter


def fit(
    plan: TrainPlan,
    listen: Listener,
    *,
    resume: bool,
    place: AbstractContextManager[str | None] | None = None,
    verbose: bool = False,
) -> Outcome:
    """Train as planned, record the run, register the result, and return where everything is.

    A run with checkpoints resumes from the newest good one; `resume` only says that one is expected. `place`
    is entered for the training: a Ray cluster, which yields the address of its dashboard if it has one, or
    None if Ray runs already or is not needed. A listener that raises stops nothing; the Outcome has a note of
    it. How the run ended is written to its folder. `verbose` is as in `processes.run`. Raises TrainingError,
    PlanError, LaunchError or ConfigError, and PausedError if SIGTERM ended the run with a checkpoint, or
    BudgetError if its budget did.
    """
    tell = Broadcast({"the listener": listen})
    with lease.hold(plan.paths.folder, lambda text: tell(Warned(text))) as fence:
        try:
            if plan.training.init_from is not None:
                from raystack.training.driver import initial

                initial.settle(plan)
            keeper = Keeper(plan, fence)
            with Meter(plan, fence, tell, keeper.flush) as meter, place or nullcontext() as dashboard:
                tell.add("the ledger", meter)
                tell.add("the run's own record", keeper)
                if dashboard is not None:
                    tell(RayUp(dashboard))
                try:
                    with _keeping_logs(plan, tell):
                        outcome = _trained(plan, tell, fence, meter, resume=resume, verbose=verbose)
                except PausedError as error:
                    if (told := meter.explained(error)) is not None:
                        raise told from error
                    raise
            outcome = replace(outcome, links={**outcome.links, **_lasting(plan, dashboard)})
            outcome = _recorded(outcome, fence)
        except BaseException as error:  # Ctrl-C ends a run, too
            _leave(error, plan, tell.notes, fence)
            raise
    return outcome


@contextmanager
def _keeping_logs(plan: TrainPlan, tell: Broadcast) -> Iterator[None]:
    """Keep the logs of a joined cluster when the block ends, because the cluster may go away after it."""
    try:
        yield
    except KeyboardInterrupt:
        raise  # a person waits
    except PausedError:
        _keep_logs(plan, tell, 5.0)  # what was told to stop is killed after some time
        raise
    except RaystackError:
        _keep_logs(plan, tell, 20.0)
        raise
    _keep_logs(plan, tell, 20.0)


def _keep_logs(plan: TrainPlan, tell: Broadcast, seconds: float) -> None:
    target = plan.config.target
    if not plan.workers.on_ray or not isinstance(target, Local) or target.address is None:
        return
    from raystack.training.driver import ray_logs

    if (why := ray_logs.keep(plan.paths.folder, seconds)) is not None:
        tell(Warned(why))


def _trained(
    plan: TrainPlan, tell: Broadcast, fence: Fence, meter: Meter, *, resume: bool, verbose: bool
) -> Outcome:
    # These imports take seconds; Ray starts meanwhile.
    from raystack.training.driver import publish

    train = _trainer(plan, meter, verbose=verbose)
    if resume and not CheckpointStore(plan.paths.checkpoints).manifests():
        tell(Warned(f"{plan.run_id} has no checkpoint to go on from: it starts again from its beginning"))
    Storage(plan.paths.folder).write("config.yaml", configs.dump(plan.config))
    with publish.tracked(plan, tell) as tracker, publish.recorded(plan, tell) as beside:
        tell.add("MLflow's record", publish.recorder(tracker))
        for each in beside:
            tell.add(f"{each.name}'s record", each)
        finished = train(plan, tell, fence)
        # Another driver may have taken over since the last checkpoint: then it registers, and not this one.
        fence.check()
        tell(finished)
        outcome = publish.publish(plan, finished, tracker)
    # After the block, because the tracker's notes are complete only when it has finished.
    links, notes = dict(tracker.links), [*tracker.notes]
    for each in beside:
        links |= each.links
        notes += each.notes
    return replace(outcome, links=links, notes=(*outcome.notes, *notes, *tell.notes))


def _trainer(
    plan: TrainPlan, meter: Meter, *, verbose: bool
) -> Callable[[TrainPlan, Listener, Fence], Finished]:
    """Return what trains: in processes of this machine, or in this process and on Ray."""
    if plan.workers.launcher == "processes":
        from raystack.training.driver import processes

        return partial(processes.run, stoppable=meter.stoppable, verbose=verbose)
    from raystack.training.driver import run

    return partial(run.run, stoppable=meter.stoppable)


def _recorded(outcome: Outcome, fence: Fence) -> Outcome:
    """Record that the run succeeded. The result is there, so a failure to record it is a note."""
    try:
        ending.write(fence.folder, ending.succeeded(outcome, fence.holder))
    except (RaystackError, OSError) as error:
        note = f"how the run ended could not be written to {fence.folder}/{ending.FILE}: {error}"
        return replace(outcome, notes=(*outcome.notes, note))
    return outcome


def _lasting(plan: TrainPlan, dashboard: str | None) -> dict[str, str]:
    """Return the link to the dashboard of a joined cluster; that of a cluster of the run's own is gone."""
    target = plan.config.target
    joined = isinstance(target, Local) and target.address is not None
    return {"dashboard": dashboard} if joined and dashboard is not None else {}


def _leave(error: BaseException, plan: TrainPlan, notes: tuple[str, ...], fence: Fence) -> None:
    """Record how the run failed, unless another driver has taken it over."""
    if isinstance(error, SupersededError):
        return
    # The caller raises the run's own error, which a failure to record it must not hide.
    with suppress(RaystackError, OSError):
        fence.check()
        ending.write(fence.folder, ending.failed(error, _reached(plan, notes), fence.holder))


def _reached(plan: TrainPlan, notes: tuple[str, ...]) -> Outcome:
    """Return the outcome of a run that failed: its newest checkpoint, if it has one."""
    # From the store and not from events: a worker that hangs, or was killed, has sent no event.
    store = CheckpointStore(plan.paths.checkpoints)
    newest = store.newest()
    folder = store.folder(newest) if newest is not None else None
    return Outcome(run_id=plan.run_id, step=newest, checkpoint=folder, notes=notes)
