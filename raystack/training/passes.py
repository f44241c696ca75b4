"""The forward and backward passes of a step. In: batches and the schedule. Out: gradients, and their loss."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from raystack.errors import Problem, RaystackError, TrainingError
from raystack.task import CountsTokens, Progress, Task
from raystack.training.data import BatchPlan, to_device
from raystack.training.data.batch_plan import MicroBatch
from raystack.training.flops import FlopCounter, met_counter
from raystack.training.losses import Loss, Value, bound, check_names, parts
from raystack.training.phases import Phases
from raystack.training.progress import progress_of
from raystack.training.seeds import mixed
from raystack.training.snapshot import Snapshot, kept
from raystack.training.strategy import Strategy
from raystack.training.world import World


@dataclass(frozen=True)
class Passed:
    """What the passes of a step came to on this worker. The tensors are on the device, and not read yet."""

    loss: Tensor
    """Its part of the step's mean loss times the number of workers; the sum, where the loss is a pair."""
    count: Tensor | None
    """Number of terms in the sum; None where the loss is a mean."""
    scale: Tensor | None
    """Factor that the gradients still lack; None for 1."""
    tokens: int
    values: Sequence[tuple[int, Mapping[str, Value]]] = ()
    """What the loss has returned beside itself, for each pass of so many samples; of padding it is 0."""


class Passes:
    """The passes of this worker, one step after the other."""

    def __init__(
        self,
        task: Task,
        strategy: Strategy,
        schedule: BatchPlan,
        world: World,
        phase: Phases,
        seed: int,
        batches: Iterator[Any],
        length: int | None,
    ) -> None:
        self._task, self._strategy, self._schedule = task, strategy, schedule
        self._world, self._phase, self._seed, self._batches = world, phase, seed, batches
        self._tokens: Callable[[Any], int] = (
            task.tokens if isinstance(task, CountsTokens) else lambda batch: 0
        )
        self._length = length
        self._loss = bound(task, self._progress)
        self._step = 0
        self.names: tuple[str, ...] | None = None
        """Names of what the loss returns beside itself, in order; None before the first pass."""
        self._differentiated = False
        """Whether a backward pass has begun."""

    def first(self, step: int) -> tuple[Passed, float | None]:
        """Run the first step, and count its floating point operations, which all steps share.

        Counting makes it slower, so it is left out of all timings. If an operator fails before the first
        gradient, the passes run again without it, as if nothing had happened; their number is then unknown.
        """
        before = Snapshot(list(self._strategy.bare.modules()))
        read: list[Any] = []
        counter = FlopCounter()
        try:
            # Under a dispatch mode torch.compile gives up on a block for good; forced to run eagerly here, it
            # compiles in the next step.
            with torch.compiler.set_stance("force_eager"), counter:
                passed = self._run(step, _recorded(self._batches, read))
        except RaystackError:
            raise
        except Exception as error:
            if self._differentiated or not met_counter(error):
                raise
            before.restore()
            passed, flops = self._run(step, chain(read, self._batches)), None
        else:
            flops = counter.total
        everyone = self._world.gather_objects((passed.count is not None, self.names))
        if len({pair for pair, _ in everyone}) > 1:
            raise _mixed("on every worker, or on none")
        if len({names for _, names in everyone}) > 1:
            got = "; ".join(_listed(names) for _, names in everyone)
            raise _other_names("on every worker", got)
        return self._with_scale(step, passed), flops

    def run(self, step: int) -> Passed:
        """Compute this worker's gradients of a whole step."""
        return self._with_scale(step, self._run(step, self._batches))

    def mean(self, passed: Passed) -> Tensor:
        """Return this worker's part of a step's mean loss, times the number of workers."""
        if passed.scale is None:
            return passed.loss
        return passed.loss * passed.scale * (self._world.size / self._samples(self._step))

    def _run(self, step: int, batches: Iterator[Any]) -> Passed:
        self._step = step
        micro_batches = self._schedule.micro_batches(step)
        losses: list[Tensor] = []
        counts: list[Tensor | float] = []
        values: list[tuple[int, Mapping[str, Value]]] = []
        tokens = 0
        for number, micro_batch in enumerate(micro_batches):
            with self._phase("data"):
                batch = to_device(next(batches), self._world.device)
                tokens += self._tokens(batch) if micro_batch.weight else 0
            # After the samples were read, which may draw numbers here or in a loader process.
            self._world.seed(mixed(self._seed, step, self._world.rank, number))
            # Padding is only for the collectives of a pass.
            effect = nullcontext() if micro_batch.weight else kept(self._strategy.bare)
            with effect, self._strategy.micro_step(last=micro_batch is micro_batches[-1]):
                loss = self._pass(step, micro_batch, batch)
            losses.append(loss.total)
            counts += [loss.count] if loss.count is not None else []
            values.append((micro_batch.stop - micro_batch.start if micro_batch.weight else 0, loss.values))
        if counts and len(counts) != len(losses):
            raise _mixed("for every batch, or for none")
        in_all = sum(losses[1:], losses[0])
        if not counts:
            return Passed(in_all, None, None, tokens, values)
        total = torch.zeros((), dtype=torch.float64, device=self._world.device)
        for each in counts:
            total += each
        return Passed(in_all, total, None, tokens, values)

    def _pass(self, step: int, micro_batch: MicroBatch, batch: Any) -> Loss:
        """Add the gradients of one pass; return its loss, weighted unless it is a pair."""
        with self._phase("forward"), self._strategy.autocast():
            loss = parts(self._strategy.loss(self._loss, batch))
            self._check(loss.values)
            weight = micro_batch.weight
            if loss.count is not None and weight:
                # As if each sample had one term; `scale` corrects it when the counts of all are known.
                weight = self._world.size / self._samples(step)
            # The weight is 1 without accumulation: that spares two kernels in each pass.
            weighted = loss.total if weight == 1.0 else loss.total * weight
        with self._phase("backward", weighted):
            self._differentiated = True
            self._strategy.backward(weighted)
        if not micro_batch.weight:
            return Loss(torch.zeros_like(weighted), None if loss.count is None else 0.0, loss.values)
        return replace(loss, total=(weighted if loss.count is None else loss.total).detach())

    def _progress(self) -> Progress:
        return progress_of(self._schedule, self._length, self._step)

    def _check(self, values: Mapping[str, Value]) -> None:
        """Raise TrainingError unless the values have the names of the first pass."""
        if self.names is None:
            check_names(list(values))
            self.names = tuple(sorted(values))
        elif len(self.names) != len(values) or not all(name in values for name in self.names):
            got = f"{_listed(self.names)}; {_listed(sorted(values))}"
            raise _other_names("for every batch", got)

    def _samples(self, step: int) -> int:
        return self._schedule.consumed(step + 1) - self._schedule.consumed(step)

    def _with_scale(self, step: int, passed: Passed) -> Passed:
        """Add what turns the gradient per sample into the one per term of all workers' sums."""
        if passed.count is None:
            return passed
        total = passed.count.clone()
        if self._world.size > 1:
            dist.all_reduce(total)
        # A step without terms has no gradient.
        return replace(passed, scale=torch.where(total > 0, self._samples(step) / total, 0.0).float())


def mean_loss(passed: list[tuple[float, float]]) -> float:
    """Return the mean of all workers' (loss, count) of a step; NaN where nothing was counted."""
    count = math.fsum(count for _, count in passed)
    return math.fsum(loss for loss, _ in passed) / count if count else math.nan


def _recorded(batches: Iterator[Any], read: list[Any]) -> Iterator[Any]:
    for batch in batches:
        read.append(batch)
        yield batch


def _other_names(where: str, got: str) -> TrainingError:
    rule = f"loss returns the same values beside itself {where}"
    remedy = "return a pair (0, 0) for what a batch has nothing of"
    return TrainingError(Problem("task: loss", rule=rule, got=got, remedy=remedy))


def _listed(names: Sequence[str] | None) -> str:
    return ", ".join(names or ()) or "none"


def _mixed(where: str) -> TrainingError:
    return TrainingError(Problem("task: loss", rule=f"loss returns a pair {where}", got="both"))
