"""The trials of a study, from the first to the published best. In: a TunePlan. Out: an Outcome.

The record is read at the start and written at each change, so a study that was killed goes on from it.
"""

import os
import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import ray

from raystack import config as configs
from raystack.checkpoint import MODEL, CheckpointStore, read_spec
from raystack.checkpoint.fence import Fence
from raystack.code.loading import call, load
from raystack.errors import PausedError, PlanError, Problem, TrainingError
from raystack.events import StudyStarted, Warned
from raystack.interrupts import graceful
from raystack.outcome import Outcome
from raystack.plan import TrainPlan, TunePlan
from raystack.plan.tuning import changes_resources, init_sources, plan_trial, trial_config
from raystack.ray_internals import variables
from raystack.ray_internals.tune import Controller, register_trainable
from raystack.registry import Registered, RunStatus
from raystack.registry.gates.promote import gated_alias
from raystack.runs import ending
from raystack.trackers import open_trackers
from raystack.training.data.eval_sets import open_eval_sets
from raystack.training.driver.broadcast import Broadcast
from raystack.training.driver.run import worker_environment
from raystack.training.exporting import choose, export_model
from raystack.training.origin import Origin
from raystack.tuning.controller import Asking, Trials, Watching
from raystack.tuning.limits import reached, too_many_failures
from raystack.tuning.page import write_page
from raystack.tuning.record import BEST, PAGE, StudyStore, Trial
from raystack.tuning.scheduling import make_scheduler, replay
from raystack.tuning.search.opening import open_search
from raystack.tuning.trackers import Beside
from raystack.tuning.tracking import StudyTracker, open_study_tracker
from raystack.tuning.worker import TrialSpec, trainable

START_S = 300.0
"""Seconds in which no trial may run, beyond those of `resources.wait_s`."""
HALT_S = 60.0
"""Seconds that halted trials may take to write their checkpoints."""


def run(plan: TunePlan, store: StudyStore, tell: Broadcast, fence: Fence) -> Outcome:
    """Run a study, or go on with it. Ray has to be initialised."""
    trials = store.trials() if store.exists() else []
    if not store.exists():
        store.create(plan)
    store.storage.write("config.yaml", configs.dump(plan.config))
    # First what may refuse the study.
    scheduler, search = make_scheduler(plan), open_search(plan, store, trials)
    for note in search.notes:
        tell(Warned(note))
    with (
        _tracked(plan, tell) as tracker,
        _seeded(plan.seed),
        tempfile.TemporaryDirectory() as scratch,
    ):
        over = sum(trial.over and trial.status != "infeasible" for trial in trials)
        objectives = tuple((each.metric, each.mode) for each in plan.objectives)
        tell(StudyStarted(plan.name, plan.trials, over, objectives))
        total = ray.cluster_resources()
        _refuse_too_large(plan, total)
        name = f"raystack-{plan.run_id}"
        register_trainable(name, trainable(ray.put(TrialSpec(plan, _origins(plan)))))
        study = Trials(
            plan,
            store,
            search,
            tracker,
            tell,
            trials,
            trainable=name,
            scratch=scratch,
            total=total,
        )
        controller = Controller(
            search=Asking(study),
            scheduler=scheduler,
            callback=Watching(study),
            scratch=scratch,
            environment=worker_environment(plan.base),
        )
        replay(scheduler, controller, trials)
        try:
            why = _loop(plan, store, study, controller, fence)
        finally:
            controller.cleanup()
        study.close()
        return _published(plan, store, study, tracker, why, tell, new=study.ended > 0)


def _origins(plan: TunePlan) -> Mapping[str, Origin]:
    """Return what each `training.init_from` of the study means now; what it meant before stays."""
    sources = init_sources(plan)
    if not sources:
        return {}
    from raystack.training.driver import initial

    return initial.settled(plan.base, plan.paths.folder, sources)


def _refuse_too_large(plan: TunePlan, total: Mapping[str, float]) -> None:
    """Raise PlanError if no trial fits the cluster, where the space does not change what a trial needs."""
    workers = plan.workers
    if workers.wait_s > 0 or any(changes_resources(each) for each in plan.space):
        return
    for name, amount in workers.needed.items():
        if amount > total.get(name, 0.0):
            rule = f"a trial needs {amount:g} {name}, and the cluster has {total.get(name, 0.0):g}"
            remedy = "ask for less, or set resources.wait_s if the cluster grows"
            raise PlanError(Problem("resources", rule=rule, remedy=remedy))


@contextmanager
def _tracked(plan: TunePlan, tell: Broadcast) -> Iterator[StudyTracker]:
    def warn(text: str) -> None:
        tell(Warned(text))

    tracker: StudyTracker = open_study_tracker(plan, warn)
    if open_trackers(plan.base, warn):
        tracker = Beside(plan, tracker, warn)
    try:
        yield tracker
    except BaseException as error:
        status: RunStatus = "KILLED" if isinstance(error, (KeyboardInterrupt, PausedError)) else "FAILED"
        tracker.finish(status, None, {})
        for note in tracker.notes:
            tell(Warned(note))
        raise


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators that Ray Tune's schedulers draw from; put them back after the block."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def _loop(
    plan: TunePlan, store: StudyStore, study: Trials, controller: Controller, fence: Fence
) -> str | None:
    """Run the trials to the end of the study; return the limit that ended it, or None.

    Raises PausedError on SIGTERM, and the study's own error.
    """
    asked: list[bool] = []
    began, before, over = time.monotonic(), store.seconds(), -1
    why: str | None = None
    halted: float | None = None
    ran = began
    os.environ[variables.TUNE_LOOSE_METRICS] = "1"  # a trial that resumed at its end reports no metric again
    with graceful(lambda: asked.append(True)):
        while not controller.is_finished():
            controller.step()
            study.refresh()
            if study.error is not None:
                raise study.error
            if controller.running:
                ran = time.monotonic()
            elif time.monotonic() - ran > START_S + plan.workers.wait_s and halted is None:
                raise _stuck(plan)
            if too_many_failures(plan, study.all):
                raise _failures(study.all)
            spent = before + time.monotonic() - began
            if over != (over := sum(trial.over for trial in study.all)):
                store.spend(spent)
            if halted is None:
                why = reached(plan, study.all, spent)
                if asked or why is not None:
                    halted = time.monotonic()
                    study.ending, study.finished = "running" if asked else "stopped", True
                    for _, actor in controller.started:
                        actor.halt.remote()
            elif not controller.running or time.monotonic() - halted > HALT_S:
                break
    fence.check()
    if study.ending == "running":
        rule = f"the study stopped as it was told to, with {over} of {plan.trials} trials over"
        raise PausedError(Problem(plan.name, rule=rule, remedy="go on with --resume"), "terminate")
    return why


def _stuck(plan: TunePlan) -> PlanError:
    have = ", ".join(f"{amount:g} {name}" for name, amount in sorted(ray.available_resources().items()))
    rule = f"no trial could start in {START_S + plan.workers.wait_s:.0f} s; free are {have}"
    remedy = "ask for less, or set resources.wait_s if the cluster grows; go on with --resume"
    return PlanError(Problem("resources", rule=rule, remedy=remedy))


def _failures(trials: list[Trial]) -> TrainingError:
    failed = [trial for trial in trials if trial.status == "failed"]
    rule = f"{len(failed)} trials failed, the last one: {failed[-1].reason}"
    remedy = "mend that, or raise tuning.limits.failures; go on with --resume"
    return TrainingError(Problem(f"trial {failed[-1].number}", rule=rule, remedy=remedy))


def _published(
    plan: TunePlan,
    store: StudyStore,
    study: Trials,
    tracker: StudyTracker,
    why: str | None,
    tell: Broadcast,
    *,
    new: bool,
) -> Outcome:
    """Write the best config and the page, register the best model, and return the Outcome.

    Without a `new` trial the model of the start before is the study's.
    """
    kept = study.kept()
    best = kept[0] if kept else None
    texts, registered, chosen = {PAGE: write_page(plan, study.all)}, None, None
    alias: str | None = None
    gated: str | None = None
    if best is not None:
        texts[BEST] = configs.dump(trial_config(plan, best.point))
        trial = plan_trial(plan, best.id, best.point)
        before = None if new else ending.read(store.folder)
        if before is not None and (version := before.outcome.model_version) is not None:
            chosen, registered = before.outcome.checkpoint, Registered(version, before.outcome.alias)
            alias = registered.alias
        else:
            chosen, registered = _registered(plan, trial, tracker, tell)
            alias, gated = gated_alias(plan.config, registered, plan.name)
    for name, text in texts.items():
        store.storage.write(name, text)
    tracker.finish("FINISHED", best, texts)
    notes = () if why is None else (f"the study ended early: {why}",)
    if gated is not None:
        notes = (*notes, gated)
    if best is None:
        notes = (*notes, "no trial has a value to compare by")
    links = {"page": f"{store.folder}/{PAGE}", "best config": f"{store.folder}/{BEST}"}
    return Outcome(
        run_id=plan.name,
        step=best.steps if best else None,
        metrics=best.reports[-1].metrics if best else {},
        checkpoint=chosen,
        model_version=registered.version if registered else None,
        alias=alias,
        links={**links, **tracker.links},
        notes=(*notes, *tracker.notes),
    )


def _registered(
    plan: TunePlan, trial: TrainPlan, tracker: StudyTracker, tell: Broadcast
) -> tuple[str | None, Registered | None]:
    """Export the best trial's chosen checkpoint and register it if the config names a model."""
    checkpoints = CheckpointStore(trial.paths.checkpoints)
    if not checkpoints.manifests():
        return None, None
    chosen = choose(trial, checkpoints)
    task = load(trial.config.task)
    given = call("eval_data", task.eval_data, folder=trial.config.task.folder)
    sets = open_eval_sets(given, trial.training)
    export_model(trial, checkpoints, chosen, task, sets, tell)
    registered = None
    if plan.config.registry.model is not None:
        with checkpoints.fetch(chosen.step, MODEL) as folder:
            registered = tracker.register(folder, read_spec(folder))
    return checkpoints.folder(chosen.step), registered
