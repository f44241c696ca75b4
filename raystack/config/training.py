"""The training section: length, batch, optimizer, schedule, precision, evaluation, checkpoints, strategy."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from raystack.config.data import Data
from raystack.config.ema import EMA
from raystack.config.faults import Faults, Watchdog
from raystack.config.initial import Initial
from raystack.config.names import MetricName
from raystack.config.optimizer import AdamW, Frozen, Optimizer, Schedule
from raystack.config.section import ConflictError, NonNegativeFloat, Section, kind_or
from raystack.config.strategy import DDP, FSDP, Zero


class Batch(Section):
    """Batch arithmetic: global = micro x accumulation x workers.

    Two of the sizes may be omitted; the product of those given has to match.
    """

    global_: Annotated[PositiveInt | None, Field(alias="global")] = None
    """Samples per optimizer step over all workers. Preferably set this one, because it keeps the training the
    same on any number of workers.
    """

    micro: PositiveInt | Literal["auto"] | None = None
    """Samples per forward pass on one worker. Not set: the global batch divided by the workers. `auto`: the
    largest that fits the device by the memory plan, which measures the model and therefore imports torch when
    it plans.
    """

    accumulation: PositiveInt | None = None
    """Forward passes per optimizer step. Not set: computed from the other two, or 1."""

    micro_tokens: PositiveInt | None = None
    """Padded tokens per forward pass on one worker, instead of `micro` samples: the samples of a step are put
    together by length, so that the longest of a pass times their number is at most this. It is in the unit of
    the dataset's `lengths`. The global batch stays a number of samples.
    """

    @model_validator(mode="after")
    def _samples_or_tokens(self) -> Self:
        if self.micro_tokens is None:
            return self
        for key in ("micro", "accumulation"):
            if getattr(self, key) is not None:
                raise ConflictError(
                    f"micro_tokens makes the passes, so there is no {key}", "micro_tokens", key
                )
        if self.global_ is None:
            remedy = "add training.batch.global=64, for example"
            raise ConflictError("micro_tokens needs the global batch", "micro_tokens", remedy=remedy)
        return self


class KeepBest(Section):
    """The best checkpoints by a metric, which are kept."""

    metric: MetricName
    """Metric of an evaluation, e.g. `eval/accuracy`."""

    mode: Literal["min", "max"]
    """`min` if lower values are better, `max` if higher ones are."""

    count: PositiveInt = 1
    """Number of best checkpoints to keep."""


class Periodic(Section):
    """What is done at an interval."""

    every_steps: PositiveInt | None = None
    """Optimizer steps from one to the next. Not set, and `every_epochs` neither: only at the end."""

    every_epochs: PositiveFloat | None = None
    """Epochs from one to the next, in place of `every_steps`; may be a fraction. One is due after the first
    step that reaches a multiple of it.
    """

    @model_validator(mode="after")
    def _one_interval(self) -> Self:
        if self.every_steps is not None and self.every_epochs is not None:
            raise ConflictError(
                "takes an interval in steps or in epochs, not both",
                "every_steps",
                "every_epochs",
                remedy="drop one, or set it to null",
            )
        return self


class Checkpoint(Periodic):
    """Interval and retention of checkpoints. One is always written at the end."""

    keep_last: PositiveInt = 2
    """Number of newest checkpoints to keep. Two, because a damaged newest one then costs one interval."""

    keep_best: KeepBest | None = None
    """Also keep the best by a metric; the model is then evaluated before each checkpoint."""

    pending: PositiveInt = 2
    """Maximum number of checkpoints on the local disk that wait for their upload. While that many wait, e.g.
    because the object store is unavailable, due checkpoints are skipped with a warning and training
    continues. Not used for a local folder.
    """


class Evaluate(Periodic):
    """Evaluation on the task's eval data; if there is any, it always runs at the end, and before each
    checkpoint if keep_best is set.
    """

    batch: PositiveInt | None = None
    """Samples per forward pass and worker. Not set: the training micro batch."""


class EarlyStopping(Section):
    """The end of a training that does not get better: it is then finished, as after its last step."""

    metric: MetricName
    """Metric of an evaluation, e.g. `eval/loss`."""

    mode: Literal["min", "max"]
    """`min` if lower values are better, `max` if higher ones are."""

    patience: PositiveInt
    """Number of evaluations in a row without a new best value after which the training ends."""

    min_change: NonNegativeFloat = 0.0
    """Least difference to the best value until then by which a new best value has to be better. With 0 any
    difference counts.
    """


class Training(Section):
    """Training."""

    epochs: PositiveInt | None = None
    """Passes over the training data. Set this or `steps`."""

    steps: PositiveInt | None = None
    """Optimizer steps. Set this or `epochs`."""

    batch: Batch
    """Batch arithmetic."""

    init_from: Initial = None
    """Weights to begin with: a source, such as `models:/name@alias` or a checkpoint's folder, or a section
    with more. Not used where the run has a checkpoint to go on from. Not set: those of the task's model.
    """

    optimizer: Annotated[Optimizer, Field(discriminator="kind"), kind_or("adamw")] = AdamW()
    """Optimizer and its peak learning rate."""

    schedule: Schedule = Schedule()
    """Learning rate schedule."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 computes in bfloat16 and keeps weights and optimizer state in float32: under autocast with ddp, by
    mixed precision of the gathered weights with fsdp and zero. fp16, with loss scaling, is DeepSpeed's:
    strategy zero only.
    """

    clip_norm: PositiveFloat | None = None
    """Largest total L2 norm of the gradient (Pascanu et al. 2013); above it the gradient is scaled down. Not
    set: no clipping.
    """

    clip_value: PositiveFloat | None = None
    """Largest magnitude of each element of the gradient. Not set: no clipping. Set this or `clip_norm`."""

    freeze: Annotated[tuple[Frozen, ...], Field(strict=False)] = ()
    """Parameters that are not trained, for the whole run or until a step."""

    gradient_checkpointing: bool = False
    """Recompute the activations of the task's `blocks` in the backward pass: less memory, about a third more
    compute.
    """

    ema: EMA | None = None
    """Moving average of the weights. Not set: none."""

    evaluate: Evaluate = Evaluate()
    """Evaluation during training."""

    checkpoint: Checkpoint = Checkpoint()
    """Checkpoints during training."""

    early_stopping: EarlyStopping | None = None
    """End the training when a metric has stopped getting better. Not set: it goes on to its last step."""

    max_time_s: PositiveFloat | None = None
    """Seconds of training, those of earlier attempts up to their checkpoints included, after which the run is
    finished. The step in progress, the last evaluation, checkpoint and export come on top. Not set: no limit.
    """

    data: Data = Data()
    """Data loading."""

    strategy: Annotated[DDP | FSDP | Zero, Field(discriminator="kind"), kind_or("ddp")] = DDP()
    """Distribution of the model over the workers."""

    compile: bool = False
    """Compile the task's `blocks`, or the whole model where it has none, with torch.compile. Pays off on GPUs
    and long runs.
    """

    faults: Faults = Faults()
    """Retries after a failure."""

    watchdog: Watchdog = Watchdog()
    """Hanging steps and slow workers."""

    deterministic: bool = False
    """Use only deterministic algorithms of torch, cuDNN and cuBLAS: a run on the same devices then gives the
    same bits again. Slower, and an operation without a deterministic form ends the run in its first step,
    with its name. Without it, runs on a GPU differ in the last digits.
    """

    log_every_steps: PositiveInt = 10
    """Steps between two reports of loss, learning rate and timings. Reading the loss waits for the device, so
    reporting every step slows training down.
    """

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is None and self.steps is None:
            raise ConflictError(
                "the length of the training is required", remedy="add training.epochs or training.steps"
            )
        if self.epochs is not None and self.steps is not None:
            raise ConflictError(
                "takes epochs or steps, not both", "epochs", "steps", remedy="drop one, or set it to null"
            )
        return self

    @model_validator(mode="after")
    def _one_way_to_clip(self) -> Self:
        if self.clip_norm is not None and self.clip_value is not None:
            rule = "takes clip_norm or clip_value, not both"
            raise ConflictError(rule, "clip_norm", "clip_value", remedy="drop one, or set it to null")
        return self

    @model_validator(mode="after")
    def _ema_in_memory(self) -> Self:
        offload = self.strategy.offload_optimizer if isinstance(self.strategy, Zero) else None
        if self.ema is not None and offload is not None and offload.device == "nvme":
            rule = "ema needs the float32 weights in memory, and offload_optimizer keeps them on NVMe"
            raise ConflictError(rule, "ema", remedy="use offload_optimizer.device=cpu, or drop ema")
        return self

    @model_validator(mode="after")
    def _fp16_is_deepspeeds(self) -> Self:
        if self.precision == "fp16" and self.strategy.kind != "zero":
            raise ConflictError("fp16 needs strategy zero", "precision", remedy="use bf16, or strategy=zero1")
        return self
