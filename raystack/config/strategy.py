"""The strategies: how the model is spread over the workers."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from raystack.config.section import ConflictError, NonNegativeInt, Section, Text


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

    shard: PositiveInt | None = None
    """Number of neighbouring workers that split the state among them (HSDP). Every group of so many holds all
    of it, and gradients are averaged across the groups. With the number of workers on a node, weights are
    gathered within the node. It divides the number of workers. Not set: all workers are one group.
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

    secondary_shard: Annotated[int, Field(ge=2)] | None = None
    """Stage 3: number of neighbouring workers, such as those of a node, that keep a second copy of the
    weights, split among them, from which the backward pass gathers (hpZ of ZeRO++, Wang et al. 2023). It
    divides the number of workers. Not set: no second copy.
    """

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
        if self.secondary_shard is not None and self.stage < 3:
            raise ConflictError("secondary_shard needs stage 3", "stage")
        if self.offload_optimizer is not None and self.offload_optimizer.device == "nvme" and self.stage < 3:
            raise ConflictError("offload to nvme needs stage 3", "stage")
        return self
