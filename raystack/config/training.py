"""How to train: length, batch, optimizer, schedule, precision, evaluation, checkpoints, strategy."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from raystack.config.names import MetricName
from raystack.config.section import ConflictError, Section, Text, kind_or

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]


class Batch(Section):
    """global = micro x accumulation x workers. Two may be left out; what is given must multiply out."""

    global_: Annotated[PositiveInt | None, Field(alias="global")] = None
    """Samples per optimizer step over all workers. The one to give: it keeps the training the same on any
    number of workers.
    """

    micro: PositiveInt | Literal["auto"] | None = None
    """Samples per forward pass on one worker. Left out: the global batch divided by the workers. `auto`: the
    largest that fits the device by the memory plan, which measures the model and therefore imports torch when
    it plans.
    """

    accumulation: PositiveInt | None = None
    """Forward passes per optimizer step. Left out: worked out from the other two, or 1."""


class AdamW(Section):
    """torch.optim.AdamW."""

    kind: Literal["adamw"] = "adamw"
    """Decoupled weight decay (Loshchilov & Hutter 2019)."""

    lr: PositiveFloat = 1e-3
    """Peak learning rate."""

    weight_decay: NonNegativeFloat = 0.01
    """Applied to weights with two or more dimensions; biases and norms are left alone."""

    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.9, 0.999)
    """Decay of the running mean and of the running square of the gradient."""

    eps: PositiveFloat = 1e-8
    """Added to the denominator."""


class SGD(Section):
    """torch.optim.SGD."""

    kind: Literal["sgd"]
    """Stochastic gradient descent, with momentum where it is given."""

    lr: PositiveFloat = 0.1
    """Peak learning rate."""

    weight_decay: NonNegativeFloat = 0.0
    """Applied to weights with two or more dimensions."""

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """0 turns it off."""

    nesterov: bool = False
    """Nesterov momentum; needs momentum above 0."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ConflictError("nesterov needs momentum above 0", "nesterov", "momentum")
        return self


class Schedule(Section):
    """Learning rate over the steps: a linear warm-up, then the decay."""

    kind: Literal["constant", "cosine", "linear"] = "constant"
    """Shape of the decay after the warm-up, down to `floor` at the last step."""

    warmup_steps: NonNegativeInt = 0
    """Steps over which the rate rises linearly from 0 to its peak."""

    floor: Fraction = 0.0
    """Rate at the last step, as a fraction of the peak."""


class KeepBest(Section):
    """Checkpoints to keep because of a metric."""

    metric: MetricName
    """Metric of an evaluation, e.g. `eval/accuracy`."""

    mode: Literal["min", "max"]
    """Whether less or more is better."""

    count: PositiveInt = 1
    """How many of the best to keep."""


class Checkpoint(Section):
    """When to write a checkpoint and which to keep. One is always written at the end."""

    every_steps: PositiveInt | None = None
    """Optimizer steps between two checkpoints. Left out: only at the end."""

    keep_last: PositiveInt = 2
    """How many of the newest to keep. Two, so that a damaged newest one costs one interval and not the run.
    """

    keep_best: KeepBest | None = None
    """Keep the best by a metric as well; the model is evaluated before each checkpoint then."""

    pending: PositiveInt = 2
    """Checkpoints that may wait on the local disk for their upload. While that many wait, e.g. because the
    object store is away, due ones are skipped with a warning and training goes on. Without meaning for a
    local folder.
    """


class Evaluate(Section):
    """When to evaluate on the task's eval dataset. Always done once at the end if there is one."""

    every_steps: PositiveInt | None = None
    """Optimizer steps between two evaluations. Left out: at the end, and before each checkpoint if keep_best
    asks for it.
    """

    batch: PositiveInt | None = None
    """Samples per forward pass and worker. Left out: the training micro batch."""


class Data(Section):
    """How samples reach the device."""

    loaders: NonNegativeInt = 0
    """Loader processes per worker. 0 reads samples in the training process: right for data in memory."""

    prefetch: PositiveInt = 2
    """Batches that each loader process prepares ahead; without meaning if there are none."""

    shuffle: bool = True
    """Visit the samples of each epoch in an order drawn from the seed; false keeps the dataset's own order.
    Data that can only be read in order (a stream, Ray Data) needs false.
    """

    bucket: PositiveInt | None = None
    """Put samples of similar length together, for less padding: within each window of this many global
    batches the samples are sorted by the dataset's `lengths` and cut into global batches, which come in
    random order. Each epoch still visits each sample once. 50 to 100 takes most of the padding away; a window
    as long as the epoch makes every batch alike. Left out: not.
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
    """MiB of gradients that are reduced together; smaller overlaps more with the backward pass, larger sends
    fewer messages.
    """

    find_unused_parameters: bool = False
    """Needed when a parameter gets no gradient in some step; costs a walk over the graph in each."""


class FSDP(Section):
    """torch.distributed.fsdp.fully_shard (FSDP2): weights, gradients and optimizer state are split over the
    workers.
    """

    kind: Literal["fsdp"]
    """The strategy."""

    wrap: Literal["auto", "blocks", "size", "whole"] = "auto"
    """What is gathered and freed together. `blocks`: each of the task's `blocks`; `size`: modules by
    `wrap_mb`; `whole`: the model at once, which saves no memory during a pass; `auto`: the task's blocks
    where it has some that share no parameter with another part of the model, else by size.
    """

    wrap_mb: PositiveInt = 64
    """Where modules are wrapped by size: one whose parameters take at least this many MiB, and none of whose
    children do, is one unit.
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
    """Where DeepSpeed keeps a part of the state when it is not in use."""

    device: Literal["cpu", "nvme"]
    """CPU memory, or files below `path`. NVMe needs stage 3 and DeepSpeed's async_io operator."""

    path: Text | None = None
    """Folder on a local NVMe disk of each node; for device nvme only."""

    pin_memory: bool = True
    """Page-locked CPU memory: faster copies, not swappable. Without meaning on a machine without a GPU."""

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
    """How fp16 gradients are kept from vanishing (Micikevicius et al. 2018)."""

    static: PositiveFloat | None = None
    """A constant factor. Left out: dynamic."""

    initial_power: Annotated[int, Field(ge=0, le=31)] = 16
    """Dynamic: the first factor is 2 to this power."""

    window: PositiveInt = 1000
    """Dynamic: steps without an overflow after which the factor doubles."""

    hysteresis: PositiveInt = 2
    """Dynamic: overflows before the factor halves."""

    minimum: PositiveFloat = 1.0
    """Dynamic: the least factor."""


class Zero(Section):
    """DeepSpeed's ZeRO (Rajbhandari et al. 2020), through its engine. Needs the extra `deepspeed`."""

    kind: Literal["zero"]
    """The strategy."""

    stage: Literal[0, 1, 2, 3]
    """What is split over the workers: 0 nothing, 1 optimizer state, 2 and gradients, 3 and weights."""

    offload_optimizer: Offload | None = None
    """Keep the optimizer state, and the optimizer's work, off the device. Stages 1 to 3."""

    offload_param: Offload | None = None
    """Keep the weights off the device. Stage 3."""

    overlap_comm: bool | None = None
    """Reduce gradients while the backward pass goes on. Left out: DeepSpeed's choice, on for stage 3."""

    bucket_mb: PositiveInt = 200
    """MiB of gradients that are reduced together, and of weights that are gathered together."""

    contiguous_gradients: bool = True
    """Copy gradients into one buffer as they are made, against fragmentation."""

    prefetch_mb: NonNegativeInt = 50
    """Stage 3: MiB of weights that are gathered ahead of their use."""

    persistence_kb: NonNegativeInt = 100
    """Stage 3: parameters smaller than this many KiB stay whole on every worker."""

    max_live_millions: PositiveInt = 1000
    """Stage 3: millions of gathered parameters that a device may hold at a time."""

    loss_scale: LossScale = LossScale()
    """With precision fp16."""

    extra: dict[str, Any] = Field(default={})
    """Further keys of DeepSpeed's JSON that have no field here, e.g. `{wall_clock_breakdown: true}`. A key
    that this config decides, such as a batch size, is refused.
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
    """How often, and after what wait, a run goes on by itself after one class of failure."""

    times: NonNegativeInt
    """Attempts in a row. The count starts again when a newer checkpoint was written: a run that gets on is
    never given up.
    """

    wait_s: NonNegativeFloat = 0.0
    """Seconds before the first attempt; doubled for each further one in a row, up to five minutes."""


class Faults(Section):
    """What happens after a failure. An error that the task raises always ends the run: it would come
    again.
    """

    lost: Retry = Retry(times=10)
    """A worker's process or its node is gone."""

    memory: Retry = Retry(times=1, wait_s=5)
    """A worker ran out of memory, of the device or of its node. It mostly does again."""

    hang: Retry = Retry(times=3, wait_s=5)
    """The watchdog ended a step that did not end."""

    preemption: Retry = Retry(times=1000)
    """The cluster takes a node back. Costs nothing but the restart, because a checkpoint is written in time.
    """


class Watchdog(Section):
    """Notices a step that does not end, and workers that are slower than the others."""

    multiple: Annotated[float, Field(gt=1)] | None = 10.0
    """A step may take this many times the median of the recent ones. null turns the watchdog off."""

    min_s: PositiveFloat = 60.0
    """And this many seconds at least, so that a short pause of a fast training is no alarm."""

    startup_s: PositiveFloat = 1800.0
    """Seconds that the first step, with its compilation and first reads, may take."""

    action: Literal["observe", "fail"] = "fail"
    """`observe` warns, with every worker's stack; `fail` also ends the attempt, and faults.hang says whether
    it is tried again.
    """

    slow: Annotated[float, Field(gt=1)] = 1.5
    """A worker whose own part of a step takes this many times the median worker's is reported as slow."""


class Training(Section):
    """How to train."""

    epochs: PositiveInt | None = None
    """Passes over the training data. Give this or `steps`."""

    steps: PositiveInt | None = None
    """Optimizer steps. Give this or `epochs`."""

    batch: Batch
    """Batch arithmetic."""

    optimizer: Annotated[AdamW | SGD, Field(discriminator="kind"), kind_or("adamw")] = AdamW()
    """Optimizer and its peak learning rate."""

    schedule: Schedule = Schedule()
    """Learning rate over the steps."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 computes in bfloat16 and keeps weights and optimizer state in float32: under autocast with ddp, by
    mixed precision of the gathered weights with fsdp and zero. fp16, with loss scaling, is DeepSpeed's:
    strategy zero only.
    """

    clip_norm: PositiveFloat | None = None
    """Largest total L2 norm of the gradient (Pascanu et al. 2013); above it the gradient is scaled down. Left
    out: no clipping.
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
    """How samples reach the device."""

    strategy: Annotated[DDP | FSDP | Zero, Field(discriminator="kind"), kind_or("ddp")] = DDP()
    """How the model is spread over the workers."""

    compile: bool = False
    """Compile the task's `blocks`, or the whole model where it has none, with torch.compile. Pays off on GPUs
    and long runs.
    """

    faults: Faults = Faults()
    """What happens after a failure."""

    watchdog: Watchdog = Watchdog()
    """Steps that do not end, and slow workers."""

    log_every_steps: PositiveInt = 10
    """Steps between two reports of loss, rate and timings. Reading the loss waits for the device, so not
    every step.
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
