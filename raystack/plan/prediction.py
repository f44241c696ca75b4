"""RunConfig and a request -> PredictPlan: offline prediction, its files, its workers and its parts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from raystack.config import RunConfig
from raystack.config.serving import Serving
from raystack.config.target import Job, Local
from raystack.config.tracking import Tracking
from raystack.errors import PlanError, Problem
from raystack.plan.serving import all_models, plan_serving

PARTS = 256
"""Parts that an input is divided into, where nothing else bounds them."""
LEAST_ROWS, MOST_ROWS, MOST_BYTES = 1_000, 100_000, 64 * 2**20

OnError = Literal["fail", "skip"]


@dataclass(frozen=True)
class PredictRequest:
    """What is to be predicted, and where to: the options of the command."""

    inputs: tuple[str, ...]
    """Files, folders, patterns or URLs of them."""
    out: str
    """Folder or URL of the output."""
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Columns of the input by the model's input that they are; others have the input's name."""
    keep: tuple[str, ...] | None = None
    """Columns of the input that the output has too. None: all that are no input of the model."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """The column of each output of the model that is written. Empty: all, under their own names."""
    on_error: OnError = "fail"
    """What becomes of a row that the model cannot take."""


@dataclass(frozen=True)
class InputFile:
    """A file of the input."""

    url: str
    format: str
    bytes: int
    mark: str
    """Its ETag, or the time of its last change."""
    rows: int | None = None
    """None: not counted yet, because the whole file has to be read for that."""

    @property
    def version(self) -> str:
        """Its size and mark, for people."""
        return f"{self.bytes} bytes, changed {self.mark}"

    @property
    def identity(self) -> tuple[str, int, str]:
        """What is the same as long as the file is."""
        return self.url, self.bytes, self.mark


@dataclass(frozen=True)
class PredictWorkers:
    """The processes that predict, and the resources of each."""

    inline: bool
    """True: the calling process, without Ray."""
    least: int
    most: int
    device: Literal["cpu", "cuda"]
    cpus: int
    """CPU cores of each, and its number of compute threads."""
    gpus: float
    custom: Mapping[str, float]
    accelerator_type: str | None
    wait_s: float
    """Seconds that the command may wait for resources."""

    @property
    def each(self) -> dict[str, float]:
        """Resources that Ray reserves for each."""
        gpus = {"GPU": self.gpus} if self.gpus else {}
        return {"CPU": float(self.cpus), **gpus, **self.custom}


@dataclass(frozen=True)
class PredictPlan:
    """The plan of an offline prediction: the value that `--dry-run` prints and that is executed."""

    serving: Serving
    """The section with its `model` decided."""
    tracking: Tracking
    """The section with the `uri` of the registry decided; `off` for a checkpoint, which needs no MLflow."""
    request: PredictRequest
    files: tuple[InputFile, ...]
    """The input as it was found, in the order of the output."""
    batch: int
    """Rows of one forward pass at most."""
    part_rows: int | None
    """Rows of one part; None: decided when all are counted."""
    workers: PredictWorkers
    config: RunConfig
    run_id: str
    """Name of the job, where it is one."""

    @property
    def options(self) -> tuple[str, ...]:
        """The options of the command, as a driver elsewhere gets them."""
        request = self.request
        every = [("--in", place) for place in request.inputs]
        every += [("--columns", f"{name}={','.join(found)}") for name, found in request.columns.items()]
        if request.keep is not None:
            every.append(("--keep", ",".join(request.keep)))
        if request.outputs:
            named = (f"{name}={column}" for name, column in request.outputs.items())
            every.append(("--outputs", ",".join(named)))
        every += [("--out", request.out), ("--on-error", request.on_error)]
        return tuple(f"{flag}={value}" for flag, value in every)

    @property
    def model(self) -> str:
        """`models:/name@alias`, `models:/name/version`, or the folder or URL of a checkpoint."""
        assert self.serving.model is not None
        return self.serving.model


def plan_prediction(
    config: RunConfig, request: PredictRequest, files: Sequence[InputFile], run_id: str
) -> PredictPlan:
    """Decide on an offline prediction of `files`; raise PlanError if it cannot be.

    A job finds its files itself.
    """
    target = config.target
    if not isinstance(target, Local | Job):
        rule = "predictions are made on this machine or on a running Ray cluster"
        remedy = "set target=local, or name the cluster with --address or target=job"
        raise PlanError(Problem("target", rule=rule, got=target.kind, remedy=remedy))
    served = plan_serving(config)
    if served.several:
        rule = "names several models, and a prediction is made with one"
        remedy = "set serving.model, and drop serving.models"
        raise PlanError(
            Problem("serving.models", rule=rule, got=", ".join(all_models(served.serving)), remedy=remedy)
        )
    if config.serving.graph is not None:
        rule, remedy = "predictions are made with one model, and no graph", "set serving.model"
        raise PlanError(Problem("serving.graph", rule=rule, remedy=remedy))
    if config.serving.kind == "llm":
        rule, remedy = (
            "predictions are made with other models",
            "ask the served model, or set serving.kind=model",
        )
        raise PlanError(Problem("serving.kind", rule=rule, got="llm", remedy=remedy))
    return PredictPlan(
        serving=served.serving,
        tracking=served.tracking,
        request=request,
        files=tuple(files),
        batch=config.predict.batch or config.serving.batching.max_size,
        part_rows=config.predict.part_rows,
        workers=_workers(config),
        config=config,
        run_id=run_id,
    )


def _workers(config: RunConfig) -> PredictWorkers:
    resources = config.resources
    if resources.launcher == "processes":
        rule = "processes of torch's launcher train; predictions are made in this process or on Ray"
        remedy = "set resources=inline, or resources.launcher=ray"
        raise PlanError(Problem("resources.launcher", rule=rule, got="processes", remedy=remedy))
    inline = resources.workers == "inline"
    if inline and (resources.custom or resources.accelerator_type):
        key = "custom" if resources.custom else "accelerator_type"
        rule = "inline is the process that was started, and Ray does not choose its place"
        remedy = f"set resources.workers=1, or drop resources.{key}"
        raise PlanError(Problem("resources.workers", rule=rule, got="inline", remedy=remedy))
    count = resources.workers
    least, most = count if isinstance(count, tuple) else (1, 1) if isinstance(count, str) else (count, count)
    return PredictWorkers(
        inline=inline,
        least=least,
        most=most,
        device="cuda" if resources.gpus_per_worker else "cpu",
        cpus=resources.cpus_per_worker,
        gpus=float(resources.gpus_per_worker),
        custom=resources.custom,
        accelerator_type=resources.accelerator_type,
        wait_s=resources.wait_s,
    )


def rows_per_part(rows: int, size: int, batch: int) -> int:
    """Decide on the rows of a part of an input of `rows` rows and `size` bytes: a multiple of the batch."""
    most = max(min(MOST_ROWS, MOST_BYTES * rows // max(size, 1)), 1)
    wanted = min(max(-(-rows // PARTS), LEAST_ROWS), most)
    return -(-wanted // batch) * batch


def divided(rows: int, groups: Sequence[int], part_rows: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last row but one of each part of a file.

    `groups` are the rows of what is read as one, such as Parquet's row groups: a part ends where one does, if
    it would not be larger for that. Empty: rows are read one by one.
    """
    start = 0
    for end in _ends(rows, groups, part_rows):
        if end > start:
            yield start, end
            start = end


def _ends(rows: int, groups: Sequence[int], part_rows: int) -> Iterator[int]:
    start = position = 0
    for group in groups or (rows,):
        if position > start and position + group - start > part_rows:
            yield position
            start = position
        position += group
        while position - start > part_rows:
            start += part_rows
            yield start
    yield rows
