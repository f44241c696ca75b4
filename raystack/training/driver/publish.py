"""Publication of a training: its records in MLflow and beside it, the registered version, the Outcome."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from raystack.checkpoint import MODEL, CheckpointStore, read_spec
from raystack.errors import PausedError
from raystack.events import Evaluated, Event, Finished, Initialised, Listener, Started, Stepped, Warned
from raystack.outcome import Outcome
from raystack.plan import TrainPlan
from raystack.registry import Tracker, open_tracker
from raystack.registry.gates.promote import gated_alias
from raystack.trackers import Recorder, Status, open_trackers


@contextmanager
def tracked(plan: TrainPlan, tell: Listener) -> Iterator[Tracker]:
    """Yield a tracker that ends with the block: as finished, failed or killed.

    Its notes are in the Outcome; where there is none, because the block raises, they are warnings.
    """

    def warn(text: str) -> None:
        tell(Warned(text))

    tracker = open_tracker(plan, warn)
    try:
        yield tracker
    except BaseException as error:
        tracker.finish("KILLED" if isinstance(error, (KeyboardInterrupt, PausedError)) else "FAILED")
        for note in tracker.notes:
            warn(note)
        raise
    tracker.finish("FINISHED")


@contextmanager
def recorded(plan: TrainPlan, tell: Listener) -> Iterator[Sequence[Recorder]]:
    """Yield the listeners that record beside MLflow. Their records and notes end as those of `tracked`."""

    def warn(text: str) -> None:
        tell(Warned(text))

    recorders = open_trackers(plan, warn)

    def finish(status: Status) -> None:
        for each in recorders:
            each.end(status)
        for each in recorders:
            each.wait()

    try:
        yield recorders
    except BaseException as error:
        finish("paused" if isinstance(error, (KeyboardInterrupt, PausedError)) else "failed")
        for note in (note for each in recorders for note in each.notes):
            warn(note)
        raise
    finish("finished")


def recorder(tracker: Tracker) -> Listener:
    """Return a listener that logs the events' metrics with the tracker."""

    def record(event: Event) -> None:
        if isinstance(event, (Stepped, Evaluated)):
            tracker.log_metrics(event.step, event.metrics)
        elif isinstance(event, Initialised):
            tracker.log_tags({"init_from": event.source})
        elif isinstance(event, Started):
            # Not earlier, because importing MLflow takes seconds of CPU that the start of the workers needs.
            tracker.start()
            tracker.log_metrics(event.first_step, {"model/parameters": float(event.parameters)})

    return record


def publish(plan: TrainPlan, finished: Finished, tracker: Tracker) -> Outcome:
    """Register the chosen checkpoint's model if the config names one, and return the Outcome."""
    store = CheckpointStore(plan.paths.checkpoints)
    registered = None
    if plan.config.registry.model is not None:
        with store.fetch(finished.chosen, MODEL) as folder:
            registered = tracker.register(folder, read_spec(folder))
    alias, gated = gated_alias(plan.config, registered, plan.run_id)
    return Outcome(
        run_id=plan.run_id,
        step=finished.step,
        metrics=finished.metrics,
        checkpoint=store.folder(finished.chosen),
        model_version=registered.version if registered else None,
        alias=alias,
        notes=tuple(note for note in (finished.ended_early, gated) if note is not None),
    )
