"""The Python API: the command line as one object. In: a config. Out: plans, outcomes, models.

It works in a script and in a notebook: nothing is imported before it is used, signals are handled only in the
main thread, and Ctrl-C stops what was started.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raystack import config as configs
from raystack.code.bundle import sent_with
from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.config.registry import Registry
from raystack.config.sweeps import Sweeps, placed, places
from raystack.config.target import Local
from raystack.display.console import say, warn
from raystack.display.prediction import shown_prediction
from raystack.display.progress import shown
from raystack.display.study import shown_study
from raystack.environment import gpus
from raystack.errors import ConfigError, PlanError, Problem
from raystack.events import Listener, PredictionListener
from raystack.launch import local, remote
from raystack.launch.submission import Submission
from raystack.outcome import Outcome, Prediction
from raystack.plan import (
    PredictPlan,
    TrainPlan,
    TunePlan,
    decision,
    plan_prediction,
    plan_serving,
    plan_training,
    plan_tuning,
)
from raystack.plan.automation import plan_automation
from raystack.plan.describe import PlanView
from raystack.plan.follow import plan_follow
from raystack.plan.memory import micro_batches_to_profile
from raystack.plan.naming import run_id
from raystack.plan.prediction import OnError, PredictRequest
from raystack.plan.rollout import plan_rollout
from raystack.plan.scale import counted, plan_workers, sized
from raystack.runs import selection
from raystack.runs.pace import pace
from raystack.training.profile import profile_subprocess

if TYPE_CHECKING:
    from raystack.plan.footprint import ModelProfile
    from raystack.registry.audit import Move
    from raystack.registry.gates import Promotion
    from raystack.rollout.automation.record import Entry
    from raystack.rollout.handle import RolloutHandle
    from raystack.rollout.state import Decision
    from raystack.serving.client import ServedModel
    from raystack.tuning.study import Study


Inputs = str | Path | Sequence[str | Path]
"""Files, folders, patterns and URLs."""


class Experiment:
    """A config, and what can be done with it.

    `config` is the path of a YAML file, a mapping with the same keys, or a RunConfig. `overrides` use Hydra's
    grammar, as on the command line. With `sweeps="searched"` one that gives several values is an entry of the
    search space, and with `"grid"` all combinations of such values are searched. Raises ConfigError with all
    mistakes at once.
    """

    def __init__(
        self,
        config: str | Path | Mapping[str, Any] | RunConfig,
        *overrides: str,
        sweeps: Sweeps = "refused",
    ) -> None:
        self._source, self._overrides, self._sweeps = config, overrides, sweeps
        self.config  # noqa: B018 - a mistake is shown here, and not at the first use

    @cached_property
    def config(self) -> RunConfig:
        """Return the config with its groups and overrides, typed and frozen."""
        source, overrides, sweeps = self._source, self._overrides, self._sweeps
        if isinstance(source, RunConfig):
            return configs.override(source, overrides, sweeps=sweeps) if overrides else source
        if isinstance(source, Mapping):
            return configs.from_mapping(source, overrides, sweeps=sweeps)
        return configs.load(source, overrides, sweeps=sweeps)

    def override(self, *overrides: str) -> "Experiment":
        """Return the same experiment with further overrides; this one does not change."""
        return Experiment(self._source, *self._overrides, *overrides, sweeps=self._sweeps)

    def at(self, address: str) -> "Experiment":
        """Return the same experiment on the Ray cluster at `address`, which this machine joins.

        Raises ConfigError if its resources are inline, which no cluster has a part in.
        """
        if self.config.resources.workers == "inline":
            rule, remedy = (
                "inline is this process, and no cluster has a part in it",
                "set resources.workers=2",
            )
            raise ConfigError(Problem("resources.workers", rule=rule, got="inline", remedy=remedy))
        return Experiment(self.config.model_copy(update={"target": Local(address=address)}))

    def probing(self, seconds: float) -> "Experiment":
        """Return the same experiment with steps for so many seconds, and without a registry.

        Its run is a probe: `plan` estimates the whole run by it, as by any earlier run with such workers.
        """
        training = self.config.training.model_copy(update={"max_time_s": seconds})
        return Experiment(self.config.model_copy(update={"training": training, "registry": Registry()}))

    def __repr__(self) -> str:
        config = self.config
        task, target = config.task.entry, config.target.kind
        return f"Experiment({config.experiment.name!r}, task={task!r}, target={target!r})"

    def plan(self, *, memory: bool = False, resume: bool = False, run: str | None = None) -> PlanView:
        """Return the plan that --dry-run prints. Nothing is started and nothing is written.

        `memory` profiles the model and plans each device's memory under every strategy, which takes seconds.
        `resume` and `run` are as in `train`. Raises PlanError if the config requests something impossible.
        """
        self._refuse_resumed_schedule(resume=resume, run=run)
        plan = self._planned(memory=memory, resume=resume, run=run, look_for_runs=resume or run is not None)
        # Storage is asked only where a price or a budget is.
        counted_ = plan.costs.worker is not None or plan.costs.limits
        return PlanView(
            plan,
            remote.planned(plan, _driver_options(resume=resume, run=run)),
            pace(plan) if counted_ else None,
        )

    def plan_serving(self) -> PlanView:
        """Return what would be served, and where: the table of `raystack serve --dry-run`."""
        plan = plan_serving(self.config)
        return PlanView(plan, remote.planned(plan))

    def train(
        self,
        on_event: Listener | None = None,
        *,
        memory: bool = False,
        resume: bool = False,
        run: str | None = None,
        verbose: bool = False,
    ) -> Outcome:
        """Train on this machine or on the Ray cluster at `target.address`; return when the run has ended.

        `on_event` gets every event (`raystack.events`) and replaces the progress display. `resume` resumes
        the experiment's newest run, `run` the run with that id. Raises TrainingError if the run ends without
        its result, PausedError if SIGTERM stopped it with a checkpoint, and KeyboardInterrupt on Ctrl-C:
        checkpoints stay, and what was started is stopped.
        """
        if not isinstance(self.config.target, Local):
            rule, remedy = "train() stays until the run has ended, on this machine", "use submit()"
            raise ConfigError(Problem("target", rule=rule, got=self.config.target.kind, remedy=remedy))
        plan = self._planned(memory=memory, resume=resume, run=run)
        goes_on = resume or run is not None
        if on_event is not None:
            return local.train(plan, on_event, resume=goes_on, verbose=verbose)
        with shown() as listen:
            return local.train(plan, listen, resume=goes_on, verbose=verbose)

    def submit(
        self, *, memory: bool = False, resume: bool = False, run: str | None = None, force: bool = False
    ) -> Submission:
        """Train on the target: a Ray cluster (`job`) or Kubernetes (`kuberay`).

        Returns when the target has accepted the run. The handle shows, follows, waits for and cancels it.
        With `force` a run that lacks something on Kubernetes is sent all the same. Raises PlanError if the
        request cannot be met, LaunchError if it is rejected.
        """
        self._refuse_local("submit", "train")
        self._refuse_resumed_schedule(resume=resume, run=run)
        plan = self._planned(memory=memory, resume=resume, run=run)
        return self._send(plan, _driver_options(resume=resume, run=run), force=force)

    def plan_tuning(self, *, resume: bool = False) -> PlanView:
        """Return the plan of the search: the table of `raystack tune --dry-run`. Nothing is started.

        Raises PlanError if the config requests something impossible.
        """
        plan = self._planned_study()
        return PlanView(plan, remote.planned(plan, _driver_options(resume=resume, run=None)))

    def tune(
        self, on_event: Listener | None = None, *, resume: bool = False, verbose: bool = False
    ) -> "Study":
        """Search over the config on this machine or the Ray cluster at `target.address`, as `tuning` says.

        Returns the study when it has ended. `on_event` is as in `train`. `resume` goes on with the study of
        that name; without it there must be none. Raises TrainingError if too many trials fail, PausedError if
        SIGTERM stopped it, and KeyboardInterrupt on Ctrl-C: what is known stays, and `resume` goes on.
        """
        if not isinstance(self.config.target, Local):
            rule, remedy = "tune() stays until the study has ended, on this machine", "use submit_tuning()"
            raise ConfigError(Problem("target", rule=rule, got=self.config.target.kind, remedy=remedy))
        from raystack.tuning.record import StudyStore
        from raystack.tuning.study import Study

        plan = self._planned_study()
        if resume:
            StudyStore(plan.paths.folder).check(plan)  # it has to be there
        if on_event is not None:
            outcome = local.tune(plan, on_event, resume=resume, verbose=verbose)
        else:
            with shown_study() as listen:
                outcome = local.tune(plan, listen, resume=resume, verbose=verbose)
        return replace(Study.open(plan.paths.folder), outcome=outcome)

    def submit_tuning(self, *, resume: bool = False, force: bool = False) -> Submission:
        """Search on the target: a Ray cluster (`job`) or Kubernetes (`kuberay`). It is as `submit`."""
        self._refuse_local("submit_tuning", "tune")
        return self._send(self._planned_study(), _driver_options(resume=resume, run=None), force=force)

    @property
    def study(self) -> "Study":
        """Return the config's study as its record has it. Raises ConfigError if there is none."""
        from raystack.tuning.study import Study

        return Study.open(self._planned_study().paths.folder)

    @contextmanager
    def serve(self, *, verbose: bool = False) -> "Iterator[ServedModel]":
        """Serve the model during the block, on this machine or the Ray cluster at `target.address`.

        Yields a client. Raises LaunchError if the place is at fault, ServingError if the model is.
        """
        self._require_local("serve")
        plan = plan_serving(self.config)
        with local.serving(plan, verbose=verbose) as outcome:
            from raystack.serving.access import Access
            from raystack.serving.client import ServedModel  # needs NumPy, which --dry-run does without

            yield ServedModel(plan.url, outcome, Access.of(plan.serving))

    def deploy(self, *, verbose: bool = False, force: bool = False) -> Outcome | Submission:
        """Deploy the model: on a running Ray cluster, or on Kubernetes as a RayService.

        `force` is as in `submit`.
        """
        plan = plan_serving(self.config)
        if isinstance(self.config.target, Local):
            return local.serve_detached(plan, verbose=verbose)
        return self._send(plan, force=force)

    def promote(
        self,
        version: str | None = None,
        *,
        alias: str | None = None,
        force: bool = False,
        why: str | None = None,
    ) -> "Promotion":
        """Check a version of `registry.model` by `registry.gates`, and move the alias to it if it passes.

        `version` is a number; without it the newest one is meant. `force` has it pass anyway, and needs a
        reason, `why`. Raises ConfigError if there is no such version, ServingError if MLflow does not answer.
        """
        if force and not why:
            rule = "passes a version that the gates refuse, which needs a reason"
            raise ConfigError(Problem("--force", rule=rule, remedy="say why: --why 'reason'"))
        from raystack.registry.gates import newest, promote, whoever

        uri = newest(self.config) if version is None else f"models:/{self._registered}/{version}"
        reason = why or "it was asked for"
        return promote(self.config, uri, alias=alias, who=whoever(), why=reason, force=force)

    def demote(self, *, alias: str | None = None, why: str | None = None) -> "Move":
        """Have the alias point to the version that it pointed to before. Raises as `promote` does."""
        from raystack.registry.gates import demote, whoever

        return demote(self.config, alias=alias, who=whoever(), why=why or "it was asked for")

    @property
    def moves(self) -> "list[Move]":
        """Return every move of an alias of `registry.model`, and every refusal, the oldest first."""
        from raystack.registry.audit import Audit

        return Audit(self.config.experiment.storage, self._registered).moves()

    @property
    def _registered(self) -> str:
        model = self.config.registry.model
        if model is None:
            raise ConfigError(Problem("registry.model", rule="names no registered model", remedy="set it"))
        return model

    def automate(self, on_step: "Callable[[Entry], None] | None" = None, *, once: bool = False) -> None:
        """Train again when the section `automation` says so, and roll out what passes; stay until Ctrl-C.

        `on_step` gets every step, which the record has too. `once` ends when there is nothing more to do now.
        Raises PlanError for an automation that cannot work, LaunchError if another process has it.
        """
        plan = plan_automation(self.config)
        from raystack.rollout.automation.run import run  # imports requests

        run(plan, on_step or (lambda step: say(step.what)), say, once=once)

    def rehearse_automation(self) -> "tuple[str, list[Entry]]":
        """Return what the automation would have done over the recorded past, after what is assumed."""
        plan = plan_automation(self.config)
        from raystack.rollout.automation.past import rehearse

        return rehearse(plan, time.time())

    @property
    def automation_steps(self) -> "list[Entry]":
        """Return all steps that the automation took, the oldest first."""
        plan = plan_automation(self.config)
        from raystack.rollout.automation.record import Record

        return Record(plan.folder).entries()

    def follow(self, tell: "Callable[[str], None]" = say, *, verbose: bool = False) -> None:
        """Roll out each version that the alias of `rollout.follow` comes to point to; stay until Ctrl-C.

        Raises LaunchError if another process follows it, or the port of its webhook is taken.
        """
        plan = plan_follow(self.config)
        from raystack.rollout.follow.run import run  # imports uvicorn

        run(plan, tell, verbose=verbose)

    def plan_rollout(self) -> PlanView:
        """Return what would be rolled out, in which steps and bounds. Nothing is started."""
        return PlanView(plan_rollout(self.config))

    def start_rollout(self, *, supersede: bool = False, verbose: bool = False) -> "RolloutHandle":
        """Roll the version of `rollout.model` out beside what is served; return when it has begun.

        `supersede` sends a rollout of the same model back that is not over; else that is a ConfigError.
        Raises LaunchError if nothing is served, PlanError if a gate refuses the version.
        """
        plan = plan_rollout(self.config)
        from raystack.rollout.start import start

        return start(plan, supersede=supersede, verbose=verbose)

    @property
    def rollout(self) -> "RolloutHandle":
        """Return the rollout of the model that was started last. Raises ConfigError if there is none."""
        from raystack.rollout.handle import find

        return find(self.config)

    def resume_rollout(self, *, who: str, why: str = "", verbose: bool = False) -> "Decision | None":
        """Have the rollout go on, with a new process if it has none; None if it was not paused."""
        from raystack.rollout.start import resume

        return resume(self.rollout, self.config.target, who=who, why=why, verbose=verbose)

    def plan_prediction(self, inputs: Inputs, out: str | Path, **options: Any) -> PlanView:
        """Return the plan of a prediction: the table of `raystack predict --dry-run`. Nothing is started.

        `options` are those of `predict`. The input's files are found, and counted where that is cheap.
        """
        from raystack.serving.offline.count import counted

        plan = self._planned_prediction(predict_request(inputs, out, **options))
        return PlanView(replace(plan, files=counted(plan.files)))

    def predict(
        self,
        inputs: Inputs,
        out: str | Path,
        *,
        columns: Mapping[str, str | Sequence[str]] | None = None,
        keep: Sequence[str] | None = None,
        outputs: Mapping[str, str] | Sequence[str] | None = None,
        on_error: OnError = "fail",
        on_event: PredictionListener | None = None,
        verbose: bool = False,
    ) -> Prediction:
        """Predict all rows of files with the model of `serving.model`, into a folder of Parquet files.

        `inputs` are files, folders, patterns or URLs. `columns` has the column, or the columns, of inputs
        that have another name in the files. `keep` are columns of the input that the output has, by default
        all that are no input. `outputs` are those that are written; a mapping names their columns.
        `on_event` gets every event and replaces the progress display.

        If `out` has a part of the same prediction, the rest is done. Raises ConfigError if it has another
        one, or the input does not fit the model; ServingError if the model cannot be loaded or, without
        `on_error="skip"`, cannot take a row; KeyboardInterrupt on Ctrl-C. What is done stays.
        """
        request = predict_request(inputs, out, columns=columns, keep=keep, outputs=outputs, on_error=on_error)
        plan = self._planned_prediction(request)
        if not isinstance(self.config.target, Local):
            rule = "predict() stays until it has ended, on this machine or a cluster that it joins"
            remedy = "use submit_prediction(), or at(address)"
            raise ConfigError(Problem("target", rule=rule, got=self.config.target.kind, remedy=remedy))
        if on_event is not None:
            return local.predict(plan, on_event, verbose=verbose)
        with shown_prediction() as listen:
            return local.predict(plan, listen, verbose=verbose)

    def submit_prediction(self, inputs: Inputs, out: str | Path, **options: Any) -> Submission:
        """Predict as a job of a Ray cluster, which has to reach `inputs` and `out`. It is as `submit`.

        `options` are those of `predict`.
        """
        self._refuse_local("submit_prediction", "predict")
        plan = self._planned_prediction(predict_request(inputs, out, **options))
        return self._send(plan, plan.options)

    def _planned_prediction(self, request: PredictRequest) -> PredictPlan:
        name = run_id(self.config.experiment.name, datetime.now(), secrets.token_hex(2))
        plan = plan_prediction(self.config, request, (), name)
        if not isinstance(self.config.target, Local):
            return plan
        from raystack.serving.offline.files import find_files

        return plan_prediction(self.config, request, find_files(request.inputs, request.out), name)

    def _send(self, plan: remote.Sent, options: tuple[str, ...] = (), *, force: bool = False) -> Submission:
        target = self.config.target
        assert not isinstance(target, Local)
        return Submission(
            remote.submit(plan, options, force=force),
            remote.ClusterRef.of(target, self.config.experiment.storage),
            plan,
        )

    def _planned(
        self,
        *,
        memory: bool = False,
        resume: bool = False,
        run: str | None = None,
        look_for_runs: bool = True,
    ) -> TrainPlan:
        config, profile = self._counted, None
        if memory or config.training.batch.micro == "auto":
            config = sized(config, gpus.memory_gib)
            profile = self._profile(config)
        run_id = self._run_id(resume, run, look_for_runs=look_for_runs)
        plan = plan_training(config, run_id, profile)
        if plan.memory is not None and plan.memory.fits is False:
            warn(f"by the memory plan {plan.memory.chosen} does not fit the device: see --dry-run --memory")
        self._check_sent(plan)
        return plan

    def _planned_study(self) -> TunePlan:
        config = self.config
        name = (
            config.experiment.name if config.tuning is None else config.tuning.name or config.experiment.name
        )
        try:
            plan = plan_tuning(config, run_id(name, datetime.now(), secrets.token_hex(2)))
        except PlanError as error:
            raise PlanError(placed(error.problems, places(self._overrides))) from None
        self._check_sent(plan)
        return plan

    def _check_sent(self, plan: TrainPlan | TunePlan) -> None:
        """Raise PlanError if a driver elsewhere decides otherwise than what was shown where it was sent."""
        if isinstance(self._source, (str, Path)) and (sent := sent_with(Path(self._source))) is not None:
            decision.check(plan, sent)

    @property
    def _counted(self) -> RunConfig:
        """Return the config with the number of workers that `workers: gpus` is here."""
        return counted(self.config, gpus.visible())

    def _profile(self, config: RunConfig) -> "ModelProfile":
        """Profile the model in a process of its own that imports PyTorch, which takes seconds."""
        workers = plan_workers(config.resources)
        say("measuring the model")
        micros = micro_batches_to_profile(config.training.batch, workers)
        return profile_subprocess.measure(self.config, micros)

    def _run_id(self, resume: bool, run: str | None, *, look_for_runs: bool) -> str:
        """Return the id of a new run, or of the one to resume. The driver of a remote run finds it there."""
        new = run_id(self.config.experiment.name, datetime.now(), secrets.token_hex(2))
        if not isinstance(self.config.target, Local) or not look_for_runs:
            return new
        return selection.choose(self.config, new, say, resume=resume or run is not None, run=run)

    def _require_local(self, method: str) -> None:
        if not isinstance(self.config.target, Local):
            rule, remedy = f"{method}() serves for the time of a block, from this machine", "use deploy()"
            raise ConfigError(Problem("target", rule=rule, got=self.config.target.kind, remedy=remedy))

    def _refuse_local(self, method: str, here: str) -> None:
        if isinstance(self.config.target, Local):
            rule = f"{method}() sends the run elsewhere, and this one runs where it is started"
            remedy = f"use {here}(), or set target=job or target=kuberay"
            raise ConfigError(Problem("target", rule=rule, got=self.config.target.kind, remedy=remedy))

    def _refuse_resumed_schedule(self, *, resume: bool, run: str | None) -> None:
        target = self.config.target
        if isinstance(target, KubeRay) and target.cron.schedule is not None and (resume or run is not None):
            rule, remedy = "a schedule starts a new run each time", "drop it, or target.cron.schedule"
            raise ConfigError(Problem("--run" if run else "--resume", rule=rule, remedy=remedy))


def predict_request(
    inputs: Inputs,
    out: str | Path,
    *,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    keep: Sequence[str] | None = None,
    outputs: Mapping[str, str] | Sequence[str] | None = None,
    on_error: OnError = "fail",
) -> PredictRequest:
    """Return a request with lists and names in their one form."""
    places = [inputs] if isinstance(inputs, (str, Path)) else inputs
    chosen = outputs if isinstance(outputs, Mapping) else {name: name for name in outputs or ()}
    return PredictRequest(
        inputs=tuple(map(_absolute, places)),
        out=_absolute(out),
        columns={
            name: (column,) if isinstance(column, str) else tuple(column)
            for name, column in (columns or {}).items()
        },
        keep=None if keep is None else tuple(keep),
        outputs=dict(chosen),
        on_error=on_error,
    )


def _absolute(place: str | Path) -> str:
    """Return a path that means the same in another folder; a URL stays."""
    return str(place) if "://" in str(place) else str(Path(place).expanduser().absolute())


def _driver_options(*, resume: bool, run: str | None) -> tuple[str, ...]:
    """Return the command-line options that name the run to a driver elsewhere."""
    if run is not None:
        return ("--run", run)
    return ("--resume",) if resume else ()
