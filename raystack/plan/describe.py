"""A plan as rows for people and as JSON for programs."""

import json
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from pydantic import TypeAdapter

from raystack.config.ema import EMA
from raystack.config.initial import InitFrom
from raystack.config.kuberay import KubeRay
from raystack.config.optimizer import ONE_CYCLE_WARMUP, SGD, Optimizer, Own, RMSprop, Schedule
from raystack.config.strategy import FSDP
from raystack.config.target import Job
from raystack.config.training import Training
from raystack.display.units import size
from raystack.plan.batch import Batch
from raystack.plan.costs import Pace, cost_rows, trial_rows
from raystack.plan.footprint import GIB, LINES, Strategy, name
from raystack.plan.kuberay import KubePlan
from raystack.plan.kuberay.facts import exact
from raystack.plan.kuberay.shape import DRIVEN, Group, PodPlan
from raystack.plan.memory import MemoryPlan
from raystack.plan.prediction import PredictPlan
from raystack.plan.rollout import RolloutPlan, rollout_rows
from raystack.plan.serve_rows import serve_rows
from raystack.plan.serving import ServePlan
from raystack.plan.study_rows import Row, study_rows
from raystack.plan.training import TrainPlan
from raystack.plan.tuning import TunePlan

Plan = TrainPlan | TunePlan | ServePlan | PredictPlan | RolloutPlan


@dataclass(frozen=True, repr=False)
class PlanView:
    """A plan for people: its text is the table that --dry-run prints."""

    plan: Plan
    """The plan that is executed."""
    kubernetes: KubePlan | None = None
    """The objects requested from Kubernetes, if it runs there."""
    pace: Pace | None = None
    """How fast an earlier run was, for the estimate of the price."""

    @property
    def rows(self) -> list[Row]:
        """The table's rows, (what, value), in reading order."""
        return rows(self.plan, self.kubernetes, self.pace)

    @property
    def json(self) -> str:
        """The whole plan as JSON, the config included."""
        return as_json(self.plan, self.kubernetes, self.pace)

    def __repr__(self) -> str:
        width = max(len(what) for what, _ in self.rows)
        return "\n".join(f"{what:<{width}}  {value}" for what, value in self.rows)

    def _repr_html_(self) -> str:
        """Return the table as HTML, which notebooks show."""
        cells = "".join(
            f"<tr><th>{escape(what)}</th><td>{escape(value)}</td></tr>" for what, value in self.rows
        )
        return f"<table>{cells}</table>"


def as_json(plan: Plan, kube: KubePlan | None = None, pace: Pace | None = None) -> str:
    """Return the whole plan, with its config, as indented JSON.

    The Kubernetes part is under `kubernetes`, and how fast an earlier run was under `pace`.
    """
    # A study holds its config more than once.
    twice: Any = {"base": {"config"}, "space": {"base"}} if isinstance(plan, TunePlan) else None
    values: dict[str, Any] = TypeAdapter(type(plan)).dump_python(
        plan, mode="json", by_alias=True, exclude=twice
    )
    if pace is not None:
        values["pace"] = asdict(pace)
    if kube is not None:
        shown = TypeAdapter(KubePlan).dump_python(kube, mode="json", by_alias=True)
        values["kubernetes"] = {
            name: value for name, value in shown.items() if name not in ("config", "target", "serve")
        }
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)


def rows(plan: Plan, kube: KubePlan | None = None, pace: Pace | None = None) -> list[Row]:
    """Return the plan as rows of (what, value), in reading order."""
    if isinstance(plan, ServePlan):
        own = _serve_rows(plan)
    elif isinstance(plan, PredictPlan):
        own = _predict_rows(plan)
    elif isinstance(plan, RolloutPlan):
        own = rollout_rows(plan)
    else:
        own = _train_rows(plan) if isinstance(plan, TrainPlan) else _tune_rows(plan)
    if isinstance(plan, TrainPlan):
        own += cost_rows(plan.costs, plan.workers.count, pace)
    if isinstance(plan, TunePlan):
        own += trial_rows(plan.base.costs, plan.workers.count)
    return own if kube is None else [*own, *_kube_rows(kube)]


def _tune_rows(plan: TunePlan) -> list[Row]:
    """Return the rows of the study, and then those of a training without a point of the space."""
    own = ("run", "workers", "folder", "tracking", "register", "ray")
    return [
        *study_rows(plan),
        ("tracking", plan.tracking_uri or "off"),
        ("register", _register(plan)),
        ("ray", _ray(plan)),
        *(row for row in _train_rows(plan.base) if row[0] not in own),
    ]


def _train_rows(plan: TrainPlan) -> list[Row]:
    training, workers = plan.training, plan.workers
    length = f"{training.epochs} epochs" if training.epochs else f"{training.steps} steps"
    best = training.checkpoint.keep_best
    kept = f"last {training.checkpoint.keep_last}" + (
        f" and best {best.count} by {best.metric} ({best.mode})" if best else ""
    )
    each = ", ".join(f"{exact(amount)} {name}" for name, amount in workers.resources.items())
    count = f"{workers.least} to {workers.count}" if workers.elastic else f"{workers.count}"
    where = f"{count} on Ray, {each} each, {workers.placement}"
    if not workers.on_ray:
        where = "in this process" if workers.inline else f"{count} in processes of this machine"
    recompute = ", gradient checkpointing" if training.gradient_checkpointing else ""
    return [
        ("run", plan.run_id),
        ("task", f"{plan.config.task.entry} in {plan.config.task.folder or 'an installed package'}"),
        ("length", f"{length}, seed {plan.seed}{', drawn by weight' if training.data.weighted else ''}"),
        ("workers", f"{where}, {workers.device} over {workers.backend}, {workers.threads} thread(s)"),
        *(("batch", _batch(one)) for one in plan.batches),
        (
            "strategy",
            (
                f"{_strategy(training.strategy)},"
                f" {training.precision}{recompute}{', compiled' if training.compile else ''}"
                f"{', deterministic' if training.deterministic else ''}"
            ),
        ),
        *(_deepspeed_rows(plan) if plan.deepspeed is not None else []),
        ("optimizer", f"{_optimizer(training.optimizer)}{_clipping(training)}"),
        ("schedule", _schedule(training.schedule)),
        *([("averages", _averages(training.ema))] if training.ema is not None else []),
        *([("begins with", _initial(training.init_from))] if training.init_from is not None else []),
        ("evaluate", f"{plan.cadence.evaluate}, {_eval_batch(plan)}"),
        ("checkpoint", f"{plan.cadence.checkpoint}, keep {kept}"),
        *_ending_rows(training),
        ("folder", plan.paths.folder),
        ("tracking", plan.tracking_uri or "off"),
        *_tracker_rows(plan),
        ("register", _register(plan)),
        ("ray", _ray(plan) if workers.on_ray else "not needed"),
        *(_memory_rows(plan.memory) if plan.memory else []),
    ]


def _optimizer(optimizer: Optimizer) -> str:
    if isinstance(optimizer, Own):
        return "the task's own"
    details = f"weight decay {optimizer.weight_decay:g}"
    if isinstance(optimizer, SGD | RMSprop):
        details = f"momentum {optimizer.momentum:g}"
    groups = f", {len(optimizer.groups)} group(s) by name" if optimizer.groups else ""
    layers = f", layer decay {optimizer.layer_decay:g}" if optimizer.layer_decay is not None else ""
    return f"{optimizer.kind}, lr {optimizer.lr:g}, {details}{layers}{groups}"


def _clipping(training: Training) -> str:
    if training.clip_value is not None:
        return f", each element of the gradient clipped at {training.clip_value:g}"
    return f", clipped at {training.clip_norm:g}" if training.clip_norm else ""


def _schedule(schedule: Schedule) -> str:
    if schedule.kind == "task":
        return "the task's own"
    fraction = schedule.warmup_fraction
    if schedule.kind == "one_cycle" and fraction is None and not schedule.warmup_steps:
        fraction = ONE_CYCLE_WARMUP
    if fraction is not None:
        return f"{schedule.kind}, {fraction:.0%} of the steps are warm-up"
    return f"{schedule.kind}, {schedule.warmup_steps} warm-up steps"


def _tracker_rows(plan: TrainPlan) -> list[Row]:
    """Return what records beside MLflow."""
    trackers, wandb = plan.trackers, plan.config.tracking.wandb
    rows = [("tensorboard", trackers.tensorboard)] if trackers.tensorboard is not None else []
    if wandb is not None:
        place = f" in {trackers.wandb_above}/wandb" if wandb.mode == "offline" else ""
        rows.append(("wandb", f"project {trackers.wandb}, {wandb.mode}{place}"))
    return rows


def _ending_rows(training: Training) -> list[Row]:
    """Return what ends the run before its last step."""
    early, limit = training.early_stopping, training.max_time_s
    rows = []
    if early is not None:
        by = f" by more than {early.min_change:g}" if early.min_change else ""
        better = f"{early.metric} ({early.mode}) gets no better{by}"
        times = f"{early.patience} evaluation{'s' if early.patience > 1 else ''}"
        rows.append(("early stopping", f"when {better} in {times}"))
    if limit is not None:
        rows.append(("time limit", f"{limit:g} s of training"))
    return rows


def _averages(config: EMA) -> str:
    """Say how the weights are averaged, and what for."""
    uses = [use for use, wanted in (("evaluated", config.evaluate), ("exported", config.export)) if wanted]
    every = "step" if config.every_steps == 1 else f"{config.every_steps} steps"
    warm = " after a warm-up" if config.warmup else ""
    return f"decay {config.decay:g}{warm}, every {every}, {' and '.join(uses) or 'kept'}"


def _deepspeed_rows(plan: TrainPlan) -> list[Row]:
    """Return DeepSpeed's JSON for each number of workers."""
    counts = [batch.workers for batch in plan.batches]
    names = ["deepspeed", *(f"deepspeed on {_counted(workers)}" for workers in counts[1:])]
    return [
        (name, json.dumps(plan.deepspeed_on(workers))) for name, workers in zip(names, counts, strict=True)
    ]


def _counted(workers: int) -> str:
    return f"{workers} worker{'s' if workers > 1 else ''}"


def _strategy(strategy: Strategy) -> str:
    """Name a strategy, for FSDP with what it gathers together."""
    # The text has both cases, because planning does not import the task: its blocks are not known yet.
    if not isinstance(strategy, FSDP):
        return name(strategy)
    by_size = f"modules of {strategy.wrap_mb} MiB or more"
    gathered = {
        "auto": f"the task's blocks, or without them {by_size}",
        "blocks": "the task's blocks",
        "size": by_size,
        "whole": "the whole model",
    }
    groups = f", split over groups of {strategy.shard}" if strategy.shard else ""
    return f"{name(strategy)} (gathers {gathered[strategy.wrap]}{groups})"


def _initial(init_from: InitFrom) -> str:
    match = init_from.match
    patterns = (match,) if isinstance(match, str) else match
    which = ", ".join(patterns) if patterns is not None else "the weights"
    return f"{which} of {init_from.source}{'' if init_from.strict else ', as far as they fit'}"


def _eval_batch(plan: TrainPlan) -> str:
    return f"batch {plan.eval_batch}" if plan.eval_tokens is None else f"{plan.eval_tokens} tokens per pass"


def _batch(batch: Batch) -> str:
    if batch.tokens is not None:
        passes = f"passes of up to {batch.tokens} padded tokens"
        return f"{batch.global_} over {batch.workers} worker(s), in {passes}"
    return (
        f"{batch.global_} = {batch.micro} micro x {batch.accumulation} accumulation x {batch.workers}"
        " worker(s)"
    )


def _memory_rows(memory: MemoryPlan) -> list[Row]:
    """Return whether the chosen strategy fits, then a table of GiB per worker with a column per strategy."""
    found = {
        True: "it fits",
        False: "it does not fit",
        None: "whether it fits is not known: set resources.device_memory_gib",
    }[memory.fits]
    of = f" of {memory.memory / GIB:.2f}" if memory.memory is not None else ""
    by = (
        "without running it"
        if memory.how == "fake"
        else f"on a small real batch, because without running it: {memory.why}"
    )
    every = memory.estimates
    table = [
        (f"  {line}", [estimate.device[line] for estimate in every])
        for line in LINES
        if line != "averages" or any(estimate.device[line] for estimate in every)
    ]
    table.append(("  in all", [estimate.total for estimate in every]))
    if any(estimate.host or estimate.disk for estimate in every):
        table += [
            ("  CPU memory", [estimate.host for estimate in every]),
            ("  NVMe", [estimate.disk for estimate in every]),
        ]
    heads = [("* " if estimate.strategy == memory.chosen else "") + estimate.strategy for estimate in every]
    return [
        (
            "memory",
            (
                f"{memory.estimate.total / GIB:.2f}{of} GiB per worker with {memory.chosen}, micro batch"
                f" {memory.micro}: {found}"
            ),
        ),
        ("  measured", by),
        ("  GiB", "".join(f"{head:>9}" for head in heads)),
        *((line, "".join(f"{size / GIB:>9.3f}" for size in sizes)) for line, sizes in table),
    ]


def _register(plan: TrainPlan | TunePlan) -> str:
    registry = plan.config.registry
    if registry.model is None:
        return "no"
    return f"models:/{registry.model}" + (f"@{registry.alias}" if registry.alias else "")


def _serve_rows(plan: ServePlan) -> list[Row]:
    return [*serve_rows(plan), ("ray", _ray(plan))]


def _predict_rows(plan: PredictPlan) -> list[Row]:
    request, workers = plan.request, plan.workers
    counted = [file.rows for file in plan.files]
    rows_ = f"{sum(each or 0 for each in counted):,}" if None not in counted else "not counted yet"
    each = ", ".join(f"{exact(amount)} {name}" for name, amount in workers.each.items())
    count = f"{workers.least}" if workers.least == workers.most else f"{workers.least} to {workers.most}"
    where = "in this process" if workers.inline else f"{count} on Ray, {each} each"
    part = f"{plan.part_rows:,} rows" if plan.part_rows else "by the rows of the input"
    chosen = ", ".join(f"{name} as {column}" for name, column in request.outputs.items())
    mapped = [f"{name} of {', '.join(columns)}" for name, columns in request.columns.items()]
    keep = "all that are no input of the model" if request.keep is None else ", ".join(request.keep) or "none"
    total = size(sum(file.bytes for file in plan.files))
    return [
        ("model", plan.model),
        ("input", ", ".join(request.inputs)),
        *([("files", f"{len(plan.files):,}, {total}, {', '.join(_formats(plan))}")] if plan.files else []),
        *([("rows", rows_)] if plan.files else []),
        *([("columns", ", ".join(mapped))] if mapped else []),
        ("keep", keep),
        ("outputs", chosen or "all"),
        ("out", request.out),
        ("batch", f"up to {plan.batch} rows"),
        ("part", part),
        ("on error", "stop, with what is done" if request.on_error == "fail" else "skip the row"),
        ("workers", f"{where}, {workers.device}, {workers.cpus} thread(s)"),
        ("tracking", plan.tracking.uri or "not needed"),
        ("ray", "not needed" if workers.inline else _ray(plan)),
    ]


def _formats(plan: PredictPlan) -> list[str]:
    return sorted({file.format for file in plan.files})


def _kube_rows(kube: KubePlan) -> list[Row]:
    """Return the rows for Kubernetes: the objects to create, and what they need there."""
    target, group = kube.target, kube.group
    queue = (
        ""
        if target.queue.scheduler == "none"
        else f" in {target.queue.scheduler}'s queue {target.queue.name or '(default)'}"
    )
    kept = target.lifetime
    end = (
        ", ".join(f"{rule.policy} {rule.ttl_s} s after {rule.after}" for rule in kept.rules)
        or f"cluster deleted {kept.ttl_s} s after the end"
    )
    job = (
        [("submission", f"{target.submission.mode}, {target.submission.retries} retries, {end}")]
        if kube.form in DRIVEN
        else []
    )
    return [
        ("object", f"{kube.kind} {kube.name} in namespace {kube.namespace}{queue}"),
        ("image", f"{target.image}, Ray {target.ray_version}"),
        ("head pod", _pod(kube.head)),
        ("worker pods", f"{_count(group)}, {_pod(group.pod)} each"),
        *((f"pods {each.name}", f"{_count(each)}, {_pod(each.pod)} each") for each in kube.further),
        *job,
        *(
            [("schedule", f"{target.cron.schedule} {target.cron.time_zone or ''}".rstrip())]
            if kube.form == "cron"
            else []
        ),
        *(("overlay", each.line) for each in kube.taken),
        *(("needs", need.line) for need in kube.needs),
    ]


def _count(group: Group) -> str:
    """Return the number of pods."""
    scaled = group.replicas is None and group.least < group.most
    count = f"{group.least * group.hosts} to {group.pods}" if scaled else f"{group.pods}"
    return f"{count} in slices of {group.hosts} hosts" if group.hosts > 1 else count


def _pod(pod: PodPlan) -> str:
    devices = pod.devices
    gpus = f", {devices.count} {devices.claim or devices.key}" if devices.count else ""
    return f"{pod.cpus} CPU, {pod.memory}{gpus}"


def _ray(plan: Plan) -> str:
    target = plan.config.target
    if isinstance(target, Job):
        return f"a job on the cluster at {target.address}"
    if isinstance(target, KubeRay):
        return f"a cluster of its own on Kubernetes, in {target.context or 'the current context'}"
    if target.address is not None:
        return f"joined at {target.address}"
    return f"started for this, {'with' if target.dashboard else 'without'} its dashboard (target.dashboard)"
