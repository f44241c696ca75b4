"""How to train: length, batch, optimizer, schedule, precision, evaluation, checkpoints, strategy."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from raystack.config.section import ConflictError, Pattern, Section

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]


class Batch(Section):
    """global = micro x accumulation x workers. Two may be left out; what is given must multiply out."""

    global_: Annotated[PositiveInt | None, Field(alias="global")] = None
    """Samples per optimizer step over all workers. The one to give: it keeps the training the same on any number of workers."""

    micro: PositiveInt | None = None
    """Samples per forward pass on one worker. Left out: the global batch divided by the workers."""

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

    metric: Annotated[str, Pattern(r"^eval/.+$", "should be the metric of an evaluation, written eval/<name>")]
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
    """How many of the newest to keep. Two, so that a damaged newest one costs one interval and not the run."""

    keep_best: KeepBest | None = None
    """Keep the best by a metric as well; the model is evaluated before each checkpoint then."""


class Evaluate(Section):
    """When to evaluate on the task's eval dataset. Always done once at the end if there is one."""

    every_steps: PositiveInt | None = None
    """Optimizer steps between two evaluations. Left out: at the end, and before each checkpoint if keep_best asks for it."""

    batch: PositiveInt | None = None
    """Samples per forward pass and worker. Left out: the training micro batch."""


class Data(Section):
    """How samples reach the device."""

    loaders: NonNegativeInt = 0
    """Loader processes per worker. 0 reads samples in the training process: right for data in memory."""

    prefetch: PositiveInt = 2
    """Batches that each loader process prepares ahead; without meaning if there are none."""

    shuffle: bool = True
    """Visit the samples of each epoch in an order drawn from the seed; false keeps the dataset's own order."""


class DDP(Section):
    """torch.nn.parallel.DistributedDataParallel: a full copy of the model on every worker."""

    kind: Literal["ddp"] = "ddp"
    """The strategy."""

    bucket_mb: PositiveInt = 25
    """MiB of gradients that are reduced together; smaller overlaps more with the backward pass, larger sends fewer messages."""

    find_unused_parameters: bool = False
    """Needed when a parameter gets no gradient in some step; costs a walk over the graph in each."""


class Training(Section):
    """How to train."""

    epochs: PositiveInt | None = None
    """Passes over the training data. Give this or `steps`."""

    steps: PositiveInt | None = None
    """Optimizer steps. Give this or `epochs`."""

    batch: Batch
    """Batch arithmetic."""

    optimizer: Annotated[AdamW | SGD, Field(discriminator="kind")] = AdamW()
    """Optimizer and its peak learning rate."""

    schedule: Schedule = Schedule()
    """Learning rate over the steps."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 runs the forward pass under bfloat16 autocast; weights and optimizer state stay in float32."""

    clip_norm: PositiveFloat | None = None
    """Largest total L2 norm of the gradient (Pascanu et al. 2013); above it the gradient is scaled down. Left out: no clipping."""

    gradient_checkpointing: bool = False
    """Recompute the activations of the task's `blocks` in the backward pass: less memory, about a third more compute."""

    evaluate: Evaluate = Evaluate()
    """Evaluation during training."""

    checkpoint: Checkpoint = Checkpoint()
    """Checkpoints during training."""

    data: Data = Data()
    """How samples reach the device."""

    strategy: DDP = DDP()
    """How the model is spread over the workers."""

    log_every_steps: PositiveInt = 10
    """Steps between two reports of loss, rate and timings. Reading the loss waits for the device, so not every step."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is None and self.steps is None:
            raise ConflictError("the length of the training is required", remedy="add training.epochs or training.steps")
        if self.epochs is not None and self.steps is not None:
            raise ConflictError("takes epochs or steps, not both", "epochs", "steps", remedy="drop one, or set it to null")
        return self
