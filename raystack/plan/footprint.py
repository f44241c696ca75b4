"""The memory of a device under one strategy, line by line: formulas over measurements of the model.

In: a Case. Out: an Estimate. psi is a number of parameters, N the number of workers. The sources are
Rajbhandari et al. 2020, "ZeRO", section 3 (what is split in which stage, and the 12 psi bytes of Adam in
mixed precision), Zhao et al. 2023, "PyTorch FSDP", section 4, and the documentation of
DistributedDataParallel, fully_shard and DeepSpeed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Literal

from raystack.config.optimizer import SGD, Adagrad, RMSprop
from raystack.config.strategy import DDP, FSDP, Offload, Zero
from raystack.config.training import Training
from raystack.plan.batch import Batch

Strategy = DDP | FSDP | Zero

MIB, GIB = 2**20, 2**30
CONTEXT: Mapping[str, int] = {"cuda": GIB, "cpu": GIB // 2}
"""Bytes of a process that are not tensors.

On a GPU, the CUDA context and the libraries' workspaces; on a CPU, Python and torch.
"""
NCCL = GIB // 2
"""Bytes of NCCL's channels and buffers, with several workers on GPUs."""
FRAGMENTATION = 0.05
"""Fraction of short-lived GPU memory that the caching allocator holds and cannot hand out."""
ALLREDUCE = 500_000_000
"""Elements in one reduction of DeepSpeed's without buckets, its `MEMORY_OPT_ALLREDUCE_SIZE`."""


LINES = (
    "weights",
    "gathered weights",
    "gradients",
    "optimizer state",
    "averages",
    "communication",
    "activations",
    "temporaries",
    "overhead",
)


@dataclass(frozen=True)
class Pass:
    """Bytes of one forward and backward pass of `micro` samples.

    Weights, buffers and optimizer state are not included.
    """

    micro: int
    activations: int
    """Bytes alive when the forward pass ends: what the backward pass needs, and the batch."""
    peak: int
    """Bytes alive at the worst moment, without the finished gradients."""
    peak_with_gradients: int
    """Bytes alive at the worst moment, with finished gradients, if the pass began without any."""


@dataclass(frozen=True)
class ModelProfile:
    """Measurements of a model and its task, made without training it.

    Weights are counted in the types in which the task makes them.
    """

    trainable: int
    """Number of parameters that get gradients; a tied one counts once."""
    frozen: int
    """Number of the other parameters."""
    trainable_bytes: int
    frozen_bytes: int
    buffer_bytes: int
    units: tuple[int, ...]
    """Number of parameters of each FSDP unit; the others belong to the root."""
    largest: int
    """Number of parameters in the largest tensor."""
    passes: tuple[Pass, ...]
    """Passes for ddp, by rising micro batch: weights as the task makes them, under autocast in bf16."""
    low_passes: tuple[Pass, ...]
    """Passes for fsdp and zero: weights in the precision of training. Equal to `passes` in fp32."""
    how: Literal["fake", "real"]
    """`fake`: on tensors without memory; `real`: extrapolated from a small real batch."""
    why: str | None = None
    """Reason why it is `real`: the error of the task on fake tensors."""
    state: int | None = None
    """Numbers in the state of the configured optimizer, where it depends on shapes (adafactor, muon)."""


@dataclass(frozen=True)
class Estimate:
    """Bytes per worker under one strategy."""

    strategy: str
    device: Mapping[str, int]
    """Bytes on the device by line, in the order of LINES."""
    host: int = 0
    """Bytes offloaded to CPU memory."""
    disk: int = 0
    """Bytes offloaded to NVMe."""

    @property
    def total(self) -> int:
        """Bytes on the device."""
        return sum(self.device.values())


@dataclass(frozen=True)
class Case:
    """One training, independent of the strategy."""

    measured: ModelProfile
    training: Training
    batch: Batch
    device: Literal["cpu", "cuda"]

    @property
    def low(self) -> int:
        """Bytes of a number in the precision of training."""
        return 4 if self.training.precision == "fp32" else 2

    @property
    def parameters(self) -> int:
        """Number of all parameters, including frozen ones."""
        return self.measured.trainable + self.measured.frozen

    @property
    def states(self) -> float:
        """Numbers per parameter in the optimizer's state; two for a task's own, which is not known here."""
        optimizer = self.training.optimizer
        match optimizer:
            case SGD():
                return int(optimizer.momentum > 0)
            case RMSprop():
                return 1 + int(optimizer.momentum > 0)
            case Adagrad():
                return 1
        if self.measured.state is not None:
            return self.measured.state / max(1, self.measured.trainable)
        return 2

    @property
    def averages(self) -> int:
        """Bytes of the moving averages of the trained weights, in float32."""
        return 4 * self.measured.trainable if self.training.ema is not None else 0

    def split(self, number: int, really: bool = True, among: int | None = None) -> int:
        """Return one worker's share, rounded up; all of it if not `really`. `among`: not all workers."""
        return -(-number // (among or self.batch.workers)) if really else number


@dataclass
class _Bill:
    """The lines of an estimate in the making; the memory of the passes is added at the end."""

    passes: Sequence[Pass]
    device: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LINES, 0))
    host: int = 0
    disk: int = 0
    step: int = 0
    """Bytes that live only in the optimizer's step, when the activations are gone."""

    def add(self, line: str, number: int, place: Offload | bool | None = None) -> None:
        """Add bytes on the device, or at `place`: True and `cpu` are the CPU's memory."""
        if place is None or place is False:
            self.device[line] += number
        elif place is True or place.device == "cpu":
            self.host += number
        else:
            self.disk += number


def estimate(case: Case, strategy: Strategy) -> Estimate:
    """Return every line of one worker's memory at the worst moment of a step."""
    match strategy:
        case DDP():
            bill = _ddp(case)
        case FSDP():
            bill = _fsdp(case, strategy)
        case Zero():
            bill = _zero(case, strategy)
    taken = at(bill.passes, case.batch.micro)
    bill.add("weights", case.measured.buffer_bytes)
    bill.add("activations", taken.activations)
    # The passes and the optimizer's step do not overlap, so the larger of the two peaks counts.
    bill.add("temporaries", max(taken.peak, bill.step) - taken.activations)
    moving = sum(
        bill.device[line] for line in ("gathered weights", "communication", "activations", "temporaries")
    )
    if case.device == "cuda":
        bill.add(
            "overhead",
            CONTEXT["cuda"] + int(FRAGMENTATION * moving) + (NCCL if case.batch.workers > 1 else 0),
        )
    else:
        bill.add("overhead", CONTEXT["cpu"])
    return Estimate(name(strategy), bill.device, bill.host, bill.disk)


def _ddp(case: Case) -> _Bill:
    """Estimate DDP: a copy of everything on every worker."""
    measured, bill = case.measured, _Bill(case.measured.passes)
    bill.add("weights", measured.trainable_bytes + measured.frozen_bytes)
    bill.add("optimizer state", int(case.states * measured.trainable_bytes))
    bill.add("averages", case.averages)
    # With several workers the gradients are views of DDP's buckets (`gradient_as_bucket_view`), which stay,
    # and autograd makes one gradient at a time beside its place there.
    if case.batch.workers > 1:
        bill.add("communication", measured.largest * 4)
    # One worker without accumulation begins each pass without gradients.
    if case.batch.workers > 1 or case.batch.accumulation > 1:
        bill.add("gradients", measured.trainable_bytes)
    else:
        taken = at(measured.passes, case.batch.micro)
        bill.add("gradients", max(taken.peak_with_gradients, measured.trainable_bytes) - taken.peak)
    return bill


def _fsdp(case: Case, config: FSDP) -> _Bill:
    """Estimate FSDP, which splits weights, gradients and optimizer state over a group of workers."""
    share = partial(case.split, among=config.shard)
    measured, bill = case.measured, _Bill(case.measured.low_passes)
    units = () if config.wrap == "whole" else measured.units
    unit, root = max([*units, 0]), case.parameters - sum(units)
    reduced = 2 if config.reduce_dtype == "bf16" and case.low == 2 else 4
    # Gathered at the same time: the root's own weights, which stay for the backward pass, one unit, and the
    # next one, which is prefetched; without resharding, all.
    gathered = root + min(2 * unit, sum(units)) if config.reshard_after_forward else case.parameters
    bill.add("weights", share(measured.trainable_bytes + measured.frozen_bytes), config.offload)
    bill.add("gathered weights", gathered * case.low)
    bill.add("gradients", share(measured.trainable_bytes), config.offload)
    bill.add("optimizer state", share(int(case.states * measured.trainable_bytes)), config.offload)
    bill.add("averages", share(case.averages), config.offload)
    # A unit's gradients are whole before they are reduced, and copied in the type of the reduction.
    bill.add("communication", min(max(unit, root), measured.trainable) * (case.low + reduced))
    # Micro steps that do not reduce keep all gradients whole.
    if case.batch.accumulation > 1:
        bill.add("gradients", measured.trainable * reduced)
    return bill


def _zero(case: Case, config: Zero) -> _Bill:
    """Estimate ZeRO, whose stages split the optimizer state (1), gradients (2) and weights (3).

    The stages are those of figure 1 of the ZeRO paper.
    """
    stage, measured, bill = config.stage, case.measured, _Bill(case.measured.low_passes)
    optimizer = config.offload_optimizer
    # From stage 1 on DeepSpeed keeps float32 masters in every precision, accumulates gradients in float32,
    # and copies these together in the optimizer's step.
    masters = 4 * measured.trainable if stage > 0 or case.low == 2 else 0
    gradients = measured.trainable * (4 if stage > 0 else case.low)
    bill.add("weights", case.split(case.parameters * case.low, stage > 2), config.offload_param)
    states = int(4 * case.states * measured.trainable)
    bill.add("optimizer state", case.split(masters + states, stage > 0), optimizer)
    bill.add("averages", case.split(case.averages, stage > 0), optimizer)
    bill.add("gradients", case.split(gradients, stage > 1), optimizer if stage > 1 else None)
    bill.step = 0 if optimizer else case.split(masters, stage > 0)
    # A contiguous bucket is allocated whole, and twice if communication overlaps.
    bucket = (
        config.bucket_mb * MIB
        if config.contiguous_gradients
        else min(config.bucket_mb * MIB, measured.trainable * case.low)
    )
    if stage == 0 and case.batch.workers > 1:
        bill.add("communication", min(measured.trainable, ALLREDUCE) * case.low)
    elif stage == 1 and case.training.precision == "bf16":
        # Another optimizer, without buckets: it keeps gradients in both types and reduces all of them at
        # once, in a flat copy of each type.
        bill.add("gradients", measured.trainable * case.low)
        bill.add("communication", min(measured.trainable, ALLREDUCE) * (4 + case.low))
    elif stage > 0:
        bill.add("communication", bucket * (2 if config.overlap_comm and stage < 3 else 1))
    if stage == 2 and case.batch.accumulation > 1:
        bill.add("gradients", case.split(measured.trainable * case.low), optimizer)
    if config.secondary_shard is not None:
        second = case.split(case.parameters * case.low, among=config.secondary_shard)
        bill.add("weights", second, config.offload_param)
    if stage == 3:
        live = min(case.parameters, config.max_live_millions * 1_000_000) * case.low
        fetched = min(config.prefetch_mb * MIB, case.parameters * case.low)
        bill.add("gathered weights", min(live + fetched, case.parameters * case.low))
        # What is fetched together lies in a flat buffer, and is copied out of it.
        bill.add("communication", max(fetched, measured.largest * case.low))
    return bill


def at(passes: Sequence[Pass], micro: int) -> Pass:
    """Return a pass of `micro` samples, linear between or beyond the measured ones."""
    # Each figure is the maximum of several that grow linearly, so it is convex: between two measured sizes
    # the line is never below it.
    exact = next((taken for taken in passes if taken.micro == micro), None)
    if exact is not None:
        return exact
    assert len(passes) > 1, "one pass says nothing about another size"
    low, high = next(
        ((one, two) for one, two in pairwise(passes) if one.micro < micro < two.micro), passes[-2:]
    )

    def line(one: int, two: int) -> int:
        return max(0, one + round((two - one) * (micro - low.micro) / (high.micro - low.micro)))

    return Pass(
        micro,
        line(low.activations, high.activations),
        line(low.peak, high.peak),
        line(low.peak_with_gradients, high.peak_with_gradients),
    )


def name(strategy: Strategy) -> str:
    """Return the strategy's name in a table, with its stage."""
    return f"zero{strategy.stage}" if isinstance(strategy, Zero) else strategy.kind
