"""The training section: length, batch, optimizer, schedule, precision, evaluation, checkpoints, strategy."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from raystack.config.names import MetricName
from raystack.config.section import ConflictError, Section, Text, kind_or

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]


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


class AdamW(Section):
    """torch.optim.AdamW."""

    kind: Literal["adamw"] = "adamw"
    """Decoupled weight decay (Loshchilov & Hutter 2019)."""

    lr: PositiveFloat = 1e-3
    """Peak learning rate."""

    weight_decay: NonNegativeFloat = 0.01
    """Weight decay of parameters with two or more dimensions, so not of biases and norms."""

    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.9, 0.999)
    """Decay rates of the running averages of the gradient and its square."""

    eps: PositiveFloat = 1e-8
    """Term added to the denominator for numerical stability."""


class SGD(Section):
    """torch.optim.SGD."""

    kind: Literal["sgd"]
    """Stochastic gradient descent, optionally with momentum."""

    lr: PositiveFloat = 0.1
    """Peak learning rate."""

    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of parameters with two or more dimensions."""

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Momentum factor; 0 disables momentum."""

    nesterov: bool = False
    """Nesterov momentum; needs momentum above 0."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ConflictError("nesterov needs momentum above 0", "nesterov", "momentum")
        return self


class Schedule(Section):
    """Learning rate schedule: a linear warm-up, then the decay."""

    kind: Literal["constant", "cosine", "linear"] = "constant"
    """Shape of the decay after the warm-up, down to `floor` at the last step."""

    warmup_steps: NonNegativeInt = 0
    """Steps over which the rate rises linearly from 0 to its peak."""

    floor: Fraction = 0.0
    """Rate at the last step, as a fraction of the peak."""


class KeepBest(Section):
    """The best checkpoints by a metric, which are kept."""

    metric: MetricName
    """Metric of an evaluation, e.g. `eval/accuracy`."""

    mode: Literal["min", "max"]
    """`min` if lower values are better, `max` if higher ones are."""

    count: PositiveInt = 1
    """Number of best checkpoints to keep."""


class Checkpoint(Section):
    """Interval and retention of checkpoints. One is always written at the end."""

    every_steps: PositiveInt | None = None
    """Optimizer steps between two checkpoints. Not set: only at the end."""

    keep_last: PositiveInt = 2
    """Number of newest checkpoints to keep. Two, because a damaged newest one then costs one interval."""

    keep_best: KeepBest | None = None
    """Also keep the best by a metric; the model is then evaluated before each checkpoint."""

    pending: PositiveInt = 2
    """Maximum number of checkpoints on the local disk that wait for their upload. While that many wait, e.g.
    because the object store is unavailable, due checkpoints are skipped with a warning and training
    continues. Not used for a local folder.
    """


class Evaluate(Section):
    """Evaluation on the task's eval dataset; if there is one, it always runs at the end."""

    every_steps: PositiveInt | None = None
    """Optimizer steps between two evaluations. Not set: at the end, and before each checkpoint if keep_best
    is set.
    """

    batch: PositiveInt | None = None
    """Samples per forward pass and worker. Not set: the training micro batch."""


class Data(Section):
    """Data loading."""

    loaders: NonNegativeInt = 0
    """Loader processes per worker. 0 reads samples in the training process, which suits data in memory."""

    prefetch: PositiveInt = 2
    """Batches that each loader process prefetches; not used without loader processes."""

    shuffle: bool = True
    """Shuffle the samples of each epoch by the seed; false keeps the dataset's own order.
    Data that can only be read in order (a stream, Ray Data) needs false.
    """

    drop_last: bool = False
    """Leave out the run's last step if it would have fewer samples than the global batch, for models that
    need full batches. Positions continue over epochs, so no other step is smaller.
    """

    bucket: PositiveInt | None = None
    """Batch samples of similar length to reduce padding: within each window of this many global batches, the
    samples are sorted by the dataset's `lengths` and split into global batches, which are visited in random
    order. Each epoch still visits each sample once. 50 to 100 removes most of the padding; a window
    as long as the epoch makes every batch alike. Not set: no bucketing.
    """

    @model_validator(mode="after")
    def _bucket_reorders(self) -> Self:
        if self.bucket is not None and not self.shuffle:
            raise ConflictError(
                "bucket changes the order of the samples, and shuffle=false keeps it", "bucket", "shuffle"
            )
        return self


class DDP(Section):
    """torch.nn.parallel.DistributedDataParallel: a full copy of the model on every worker."""

    kind: Literal["ddp"] = "ddp"
    """The strategy."""

    bucket_mb: PositiveInt = 25
    """MiB of gradients that are reduced together. Smaller buckets overlap more with the backward pass, larger
    ones send fewer messages.
    """

    find_unused_parameters: bool = False
    """Required if a parameter gets no gradient in some step; costs a graph traversal in every step."""


class FSDP(Section):
    """torch.distributed.fsdp.fully_shard (FSDP2): sharded weights, gradients and optimizer state."""

    kind: Literal["fsdp"]
    """The strategy."""

    wrap: Literal["auto", "blocks", "size", "whole"] = "auto"
    """Unit that is gathered and freed together. `blocks`: each of the task's `blocks`; `size`: modules by
    `wrap_mb`; `whole`: the model at once, which saves no memory during a pass; `auto`: the task's blocks
    where it has some that share no parameter with another part of the model, else by size.
    """

    wrap_mb: PositiveInt = 64
    """Threshold for wrapping by size, in MiB: a module is one unit if its parameters take at least this much
    and those of none of its children do.
    """

    reshard_after_forward: bool = True
    """Free a unit's gathered weights after its forward pass and gather them again for the backward pass: less
    memory, half as much communication again. False is ZeRO-2 in FSDP's terms.
    """

    reduce_dtype: Literal["fp32", "bf16"] = "fp32"
    """Type in which gradients are averaged when precision is bf16."""

    offload: bool = False
    """Keep weights, gradients and optimizer state in CPU memory; the optimizer then runs on the CPU."""


class Offload(Section):
    """Offloading of a part of DeepSpeed's state."""

    device: Literal["cpu", "nvme"]
    """CPU memory, or files below `path`. NVMe needs stage 3 and DeepSpeed's async_io operator."""

    path: Text | None = None
    """Folder on a local NVMe disk of each node; for device nvme only."""

    pin_memory: bool = True
    """Use page-locked CPU memory: faster copies, not swappable. Not used on a machine without a GPU."""

    buffers: PositiveInt = 5
    """Buffers for parameters or optimizer states on their way from and to NVMe."""

    @model_validator(mode="after")
    def _path_for_nvme(self) -> Self:
        if self.device == "nvme" and self.path is None:
            raise ConflictError(
                "nvme needs a path", "device", remedy="add path: a folder on a local NVMe disk"
            )
        if self.device == "cpu" and self.path is not None:
            raise ConflictError("path is for device nvme", "device", "path", remedy="drop path")
        return self


class LossScale(Section):
    """Loss scaling, which keeps fp16 gradients from underflowing (Micikevicius et al. 2018)."""

    static: PositiveFloat | None = None
    """Constant scale. Not set: dynamic scaling."""

    initial_power: Annotated[int, Field(ge=0, le=31)] = 16
    """Dynamic: the initial scale is 2 to this power."""

    window: PositiveInt = 1000
    """Dynamic: steps without an overflow after which the scale doubles."""

    hysteresis: PositiveInt = 2
    """Dynamic: overflows before the scale halves."""

    minimum: PositiveFloat = 1.0
    """Dynamic: the minimum scale."""


class Zero(Section):
    """DeepSpeed's ZeRO (Rajbhandari et al. 2020), through its engine. Needs the extra `deepspeed`."""

    kind: Literal["zero"]
    """The strategy."""

    stage: Literal[0, 1, 2, 3]
    """State that is partitioned: 0 none, 1 optimizer state, 2 also gradients, 3 also weights."""

    offload_optimizer: Offload | None = None
    """Offload the optimizer's state and computation from the device. Stages 1 to 3."""

    offload_param: Offload | None = None
    """Offload the weights from the device. Stage 3."""

    overlap_comm: bool | None = None
    """Reduce gradients during the backward pass. Not set: DeepSpeed's default, on for stage 3."""

    bucket_mb: PositiveInt = 200
    """MiB of gradients that are reduced together, and of weights that are gathered together."""

    contiguous_gradients: bool = True
    """Copy gradients into a contiguous buffer as they are produced, which avoids fragmentation."""

    prefetch_mb: NonNegativeInt = 50
    """Stage 3: MiB of weights that are prefetched."""

    persistence_kb: NonNegativeInt = 100
    """Stage 3: parameters smaller than this many KiB stay whole on every worker."""

    max_live_millions: PositiveInt = 1000
    """Stage 3: maximum number of gathered parameters on a device at a time, in millions."""

    loss_scale: LossScale = LossScale()
    """Loss scaling with precision fp16."""

    extra: dict[str, Any] = Field(default={})
    """Additional keys of DeepSpeed's JSON config, e.g. `{wall_clock_breakdown: true}`. A key that follows
    from this config, such as a batch size, is rejected.
    """

    @model_validator(mode="after")
    def _stage_offers_it(self) -> Self:
        if self.offload_optimizer is not None and self.stage == 0:
            raise ConflictError("offload_optimizer needs stage 1, 2 or 3", "stage")
        if self.offload_param is not None and self.stage < 3:
            raise ConflictError("offload_param needs stage 3", "stage")
        if self.offload_optimizer is not None and self.offload_optimizer.device == "nvme" and self.stage < 3:
            raise ConflictError("offload to nvme needs stage 3", "stage")
        return self


class Retry(Section):
    """Automatic retries after one class of failure."""

    times: NonNegativeInt
    """Maximum number of consecutive retries. A newer checkpoint resets the count, so a run that makes
    progress is never given up.
    """

    wait_s: NonNegativeFloat = 0.0
    """Seconds before the first retry, doubled for each consecutive one up to five minutes."""


class Faults(Section):
    """Retries by class of failure.

    An error that the task raises always ends the run, because it would be raised again.
    """

    lost: Retry = Retry(times=10)
    """A worker's process or its node was lost."""

    memory: Retry = Retry(times=1, wait_s=5)
    """A worker ran out of device or host memory, which usually happens again."""

    hang: Retry = Retry(times=3, wait_s=5)
    """The watchdog aborted a step that hung."""

    preemption: Retry = Retry(times=1000)
    """The cluster reclaims a node. Costs only the restart, because a checkpoint is written in time.
    """


class Watchdog(Section):
    """Detection of hanging steps and of workers that are slower than the others."""

    multiple: Annotated[float, Field(gt=1)] | None = 10.0
    """Limit of a step as a multiple of the recent median. null disables the watchdog."""

    min_s: PositiveFloat = 60.0
    """Lower bound of that limit in seconds, so that a short pause of a fast training raises no alarm."""

    startup_s: PositiveFloat = 1800.0
    """Limit of the first step in seconds; it includes compilation and the first reads."""

    action: Literal["observe", "fail"] = "fail"
    """`observe` logs a warning with the stacks of all workers. `fail` also ends the attempt; faults.hang sets
    the retries.
    """

    slow: Annotated[float, Field(gt=1)] = 1.5
    """Ratio to the median worker's own time per step from which a worker is reported as slow."""


class Training(Section):
    """Training."""

    epochs: PositiveInt | None = None
    """Passes over the training data. Set this or `steps`."""

    steps: PositiveInt | None = None
    """Optimizer steps. Set this or `epochs`."""

    batch: Batch
    """Batch arithmetic."""

    optimizer: Annotated[AdamW | SGD, Field(discriminator="kind"), kind_or("adamw")] = AdamW()
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

    gradient_checkpointing: bool = False
    """Recompute the activations of the task's `blocks` in the backward pass: less memory, about a third more
    compute.
    """

    evaluate: Evaluate = Evaluate()
    """Evaluation during training."""

    checkpoint: Checkpoint = Checkpoint()
    """Checkpoints during training."""

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
    def _fp16_is_deepspeeds(self) -> Self:
        if self.precision == "fp16" and self.strategy.kind != "zero":
            raise ConflictError("fp16 needs strategy zero", "precision", remedy="use bf16, or strategy=zero1")
        return self
