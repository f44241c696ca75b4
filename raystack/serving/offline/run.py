"""The driver of an offline prediction: what is decided once, the parts that are missing, and the end."""

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace

from raystack import registry
from raystack.errors import ConfigError, Problem
from raystack.events import (
    PredictionHalted,
    PredictionListener,
    PredictionStarted,
    RayUp,
    RowsPredicted,
)
from raystack.outcome import Prediction
from raystack.plan.prediction import PredictPlan
from raystack.serving.offline.decide import again, decided
from raystack.serving.offline.files import find_files
from raystack.serving.offline.output import Done, Output
from raystack.serving.offline.work import Work, describe_model
from raystack.serving.pin import pinned

RECENT_S = 30.0
"""Time over which the rate is measured."""

Place = Callable[[], AbstractContextManager[str | None]]
"""Starts or joins Ray for a block, which it gives the address of the dashboard."""


def predict(plan: PredictPlan, listen: PredictionListener, place: Place) -> Prediction:
    """Predict what is missing in the output, and return when it is complete.

    Raises ConfigError if the output is one of another model or input, or a column does not fit the model;
    ServingError if the model cannot be loaded or cannot take a row; LaunchError if the place is at fault.
    Whatever is raised, KeyboardInterrupt included, parts that are done stay, and the same plan goes on.
    """
    began = time.monotonic()
    output = Output(plan.request.out)
    work = _work(plan, output)
    done = output.done(work)
    if work.complete and len(done) == len(work.parts):
        return _result(output, work, done, already=True)
    missing = [number for number in range(len(work.parts)) if number not in done]
    meter = _Meter(listen, work, done)
    try:
        if missing:
            count = 0 if plan.workers.inline else min(plan.workers.most, len(missing))
            listen(PredictionStarted(work.model.uri, len(work.inputs), work.rows, meter.done, count))
            with closing(_parts(plan, work, missing, meter, place, listen)) as parts:
                for part in parts:
                    done[part.part] = part
        _check_input(plan, work)
        work = output.end(work, done, time.monotonic() - began)
    except BaseException:
        # Workers may have done parts of which they had no time to tell.
        kept = (work.parts[number] for number in output.there(work))
        listen(PredictionHalted(sum(part.stop - part.start for part in kept), work.rows, output.url))
        raise
    return replace(_result(output, work, done), seconds=time.monotonic() - began)


def _work(plan: PredictPlan, output: Output) -> Work:
    """Return what the output's manifest says, which is written first if it is a new one."""
    serving = pinned(plan.serving, plan.tracking)
    assert serving.model is not None
    model, signature = describe_model(
        serving.model, plan.model, registry.resolve(serving.model, plan.tracking)
    )
    before = output.find()
    if before is not None:
        return again(plan, before, model, signature, output.url)
    work = decided(plan, model, signature)
    output.decide(work)
    return work


def _check_input(plan: PredictPlan, work: Work) -> None:
    """Raise ConfigError if the input is not what it was when the output was begun."""
    now = [file.identity for file in find_files(plan.request.inputs, plan.request.out)]
    if now != [file.identity for file in work.inputs]:
        rule, remedy = "has changed while it was predicted", "predict it into another folder"
        raise ConfigError(Problem("--in", rule=rule, got=", ".join(plan.request.inputs), remedy=remedy))


def _parts(
    plan: PredictPlan,
    work: Work,
    missing: Sequence[int],
    meter: "_Meter",
    place: Place,
    listen: PredictionListener,
) -> Generator[Done]:
    """Yield each part that was missing when it is done."""
    # PyTorch, which an output that is complete does without.
    from raystack.serving.offline.part import Job, Worker

    workers = plan.workers
    job = Job(
        work,
        plan.request.out,
        plan.serving,
        plan.tracking,
        workers.device,
        workers.cpus,
        plan.batch,
        plan.request.on_error,
    )
    if workers.inline:
        worker = Worker(job)
        worker.load()
        meter.begin()
        for number in missing:
            yield worker.do(number, meter.advance)
        return
    with place() as dashboard:
        if dashboard is not None:
            listen(RayUp(dashboard))
        from raystack.serving.offline.pool import each_done

        with closing(each_done(job, missing, workers)) as parts:
            for done in parts:
                meter.advance(work.parts[done.part].stop - work.parts[done.part].start)
                yield done


def _result(output: Output, work: Work, done: dict[int, Done], *, already: bool = False) -> Prediction:
    return Prediction(
        out=output.url,
        manifest=output.manifest,
        model=work.model.uri,
        rows=sum(part.rows for part in done.values()),
        skipped=sum(len(part.skipped) for part in done.values()),
        parts=len(work.parts),
        already=already,
    )


class _Meter:
    """Counts rows, and tells of them."""

    def __init__(self, listen: PredictionListener, work: Work, done: dict[int, Done]) -> None:
        self._listen = listen
        self.done = sum(work.parts[number].stop - work.parts[number].start for number in done)
        self._recent = deque[tuple[float, int]]()

    def begin(self) -> None:
        """Have the rate count from now on."""
        self._recent.append((time.monotonic(), self.done))

    def advance(self, rows: int) -> None:
        """Count rows that are over."""
        now = time.monotonic()
        self.done += rows
        self._recent.append((now, self.done))
        while now - self._recent[0][0] > RECENT_S and len(self._recent) > 2:
            self._recent.popleft()
        since, before = self._recent[0]
        rate = (self.done - before) / (now - since) if now > since else 0.0
        self._listen(RowsPredicted(self.done, rate))
