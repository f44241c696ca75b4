"""A trial in its process: a Ray Tune trainable that trains in a thread and stops at each report.

An actor is used for many trials, one after the other, so that PyTorch and the task are imported once. With
one worker the trial trains in the actor itself; with several, Ray Train's workers are placed in the trial's
own placement group.
"""

import gc
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import ray

from raystack.errors import PausedError, Problem, RaystackError
from raystack.events import EndedEarly, Evaluated, Event, Started, Stepped
from raystack.plan import TrainPlan, TunePlan
from raystack.plan.tuning import plan_trial
from raystack.ray_internals.tune import ORDERS, Trainable, pointed, pointer
from raystack.training.driver.run import run
from raystack.training.origin import Origin, write_origins
from raystack.tuning.exchange import pool, take

OWN = "raystack/"
STEP, COMPLETE, ERROR, PAUSED, TRACE = (
    f"{OWN}{name}" for name in ("step", "complete", "error", "paused", "trace")
)
"""Keys of a result beside the metrics, all with OWN before them."""
END_S = 60.0
"""Seconds that a trial may take to end when it is told to; its process ends with it after that."""


@dataclass(frozen=True)
class TrialSpec:
    """What all trials of a study have in common."""

    plan: TunePlan
    origins: Mapping[str, Origin] = field(default_factory=dict)
    """What each `training.init_from` of the study means, because no trial can ask MLflow."""


class TrialActor(Trainable):
    """One trial after the other. A subclass made by `trainable` knows the study."""

    spec: ClassVar[Any]
    """Reference to the TrialSpec in Ray's object store."""

    def setup(self, config: dict[str, Any]) -> None:
        self._study: TrialSpec = ray.get(self.spec)
        self._session: _Session | None = None
        self._from: str | None = None
        self._halted = False

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._end()
        self._from = None
        return True

    def step(self) -> dict[str, Any]:
        if self._session is None and self._halted:
            return {PAUSED: True, "done": True}
        if self._session is None:
            self._session = _Session(self._study, self.trial_id, dict(self.config), self._from)
        return self._session.next()

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Return a pointer to the checkpoint of the last report."""
        assert self._session is not None
        return pointer(self._session.checkpoint())

    def restore(self, checkpoint_path: Any) -> None:
        """Go on from the checkpoint of this trial, or of another one."""
        self._from = pointed(checkpoint_path)

    @ray.method(concurrency_group=ORDERS)
    def halt(self) -> None:
        """Stop the trial at its next step, with a checkpoint; the study asks for no other one."""
        self._halted = True
        if self._session is not None:
            self._session.ask()

    def cleanup(self) -> None:
        self._end()

    def _end(self) -> None:
        session, self._session = self._session, None
        if session is not None and not session.end():
            os._exit(1)  # its thread would go on beside the next trial


def trainable(spec: Any) -> type[TrialActor]:
    """Return the class of a study's actors; `spec` refers to its TrialSpec."""
    return type("StudyTrial", (TrialActor,), {"spec": spec})


class _EndedError(RaystackError):
    """The trial is over: the study has decided so at one of its reports."""


class _Session:
    """The training of one trial, which waits at each report for the study's decision."""

    def __init__(self, spec: TrialSpec, trial_id: str, point: dict[str, Any], origin: str | None) -> None:
        self._study, self._id, self._origins = spec.plan, trial_id, spec.origins
        self._plan: TrainPlan = plan_trial(spec.plan, trial_id, point)
        self._origin = origin
        self._results: queue.Queue[dict[str, Any]] = queue.Queue()
        self._go, self._over = threading.Event(), threading.Event()
        self._ask: Callable[[], Any] | None = None
        self._asked = False
        self._train: dict[str, float] = {}
        self._evaluates, self._total, self._step = False, 0, 0
        self._thread = threading.Thread(target=self._run, name=f"raystack-{trial_id}", daemon=True)
        self._thread.start()

    def next(self) -> dict[str, Any]:
        """Let the training go on, and return its next result."""
        self._go.set()
        result = self._results.get()
        if result.get(STEP) == self._total and not result["done"]:
            # The last report and the end are one result, which saves a round trip to the study.
            return {**result, **self._results.get()}
        return result

    def checkpoint(self) -> str:
        """Return the URL of the checkpoint of the last report, when it is published."""
        return pool(self._study, self._plan, self._step)

    def ask(self) -> None:
        """Stop at the next step, with a checkpoint."""
        self._asked = True
        self._go.set()
        if self._ask is not None:
            self._ask()

    def end(self) -> bool:
        """End the training at its next event; return whether it ended."""
        self._over.set()
        self._go.set()
        if not self._plan.workers.inline and self._ask is not None:
            self._ask()
        self._thread.join(END_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            if self._origin is not None:
                take(self._origin, self._plan)
            if self._origins:
                write_origins(self._plan.paths.folder, self._origins)
            finished = run(self._plan, self._listen, stoppable=self._stoppable, exports=False)
            self._results.put({COMPLETE: True, STEP: finished.step, "done": True})
        except PausedError:
            self._results.put({PAUSED: True, "done": True})
        except _EndedError:
            pass
        except RaystackError as error:
            self._fail(str(error.problems[0]), error.trace)
        except BaseException as error:  # whatever a task raises ends its trial, and not the actor
            self._fail(f"{type(error).__name__}: {error}", None)
        finally:
            if self._plan.workers.device == "cuda":
                gc.collect()  # cycles hold the model, and it the device's memory; it takes 0.2 s

    def _fail(self, reason: str, trace: str | None) -> None:
        self._results.put({ERROR: reason.splitlines()[0], TRACE: trace, "done": True})

    @contextmanager
    def _stoppable(self, ask: Callable[[], Any]) -> Iterator[None]:
        self._ask = ask
        if self._asked:
            ask()
        yield

    def _listen(self, event: Event) -> None:
        if self._over.is_set() and self._plan.workers.inline:
            raise _EndedError(Problem(self._id, rule="the study has ended this trial"))
        match event:
            case Started():
                self._evaluates, self._total = event.eval_samples > 0, event.total_steps
            case EndedEarly():
                self._total = event.step  # its last report comes after this
            case Stepped():
                self._train = dict(event.metrics)
                last = event.step == self._total
                every = self._plan.cadence.log
                if not self._evaluates and (last or event.step % every == 0):
                    self._report(event.step, -(-event.step // every), {})
            case Evaluated():
                self._report(event.step, event.number, event.metrics)

    def _report(self, step: int, number: int, metrics: Mapping[str, float]) -> None:
        self._step = step
        self._go.clear()
        self._results.put({**self._train, **metrics, STEP: step, "training_iteration": number, "done": False})
        # Of several workers only the reports arrive here, and a decision reaches them at their next step.
        if step < self._total and self._plan.workers.inline:
            self._go.wait()
            if self._over.is_set():
                raise _EndedError(Problem(self._id, rule="the study has ended this trial"))
