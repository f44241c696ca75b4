"""The positions that each worker consumes in each step. In: batch, run length, origin. Out: MicroBatches."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from raystack.plan.batch import Batch
from raystack.training.data.token_budget import TokenBudget, cut


@dataclass(frozen=True)
class MicroBatch:
    """The positions, from `start` to before `stop`, that one worker reads for one forward pass; or some of
    them.
    """

    start: int
    stop: int
    # With it, the workers' average of summed gradients is the gradient of the mean loss over all samples of a
    # step, also in a last step that is smaller.
    weight: float
    """Factor on the mean loss of this pass; 0 for padding, whose samples count in another pass."""
    chosen: tuple[int, ...] | None = None
    """The positions, where they are not all of the range."""

    @property
    def positions(self) -> Sequence[int]:
        """The positions of its samples, in the order of the batch."""
        return range(self.start, self.stop) if self.chosen is None else self.chosen


@dataclass(frozen=True)
class BatchPlan:
    """The split of a run's `total` samples over steps, workers and forward passes."""

    batch: Batch
    total: int
    rank: int
    first: int = 0
    """Step from which this plan holds: that of the checkpoint which the run goes on from."""
    # Not `first` times the batch: a step before it may have been smaller, or of another size.
    origin: int = 0
    """Number of samples consumed before step `first`."""
    budget: TokenBudget | None = field(default=None, compare=False)
    """What splits a step into passes by padded length; None: their number of samples does."""

    @property
    def steps(self) -> int:
        """Number of optimizer steps in the whole run."""
        return self.first + -(-(self.total - self.origin) // self.batch.global_)

    def consumed(self, step: int) -> int:
        """Return the number of samples that all workers have consumed after `step` steps, from `first` on."""
        return min(self.origin + (step - self.first) * self.batch.global_, self.total)

    @property
    def smallest_pass(self) -> int:
        """Number of samples in the smallest forward pass of the last step, over all workers."""
        last = self.steps - 1
        workers = [replace(self, rank=rank) for rank in range(self.batch.workers)]
        return min(len(one.positions) for worker in workers for one in worker.micro_batches(last))

    def smaller(self, step: int) -> bool:
        """Return whether a step has fewer samples than the global batch, as only the last one can."""
        return self.consumed(step + 1) - self.consumed(step) < self.batch.global_

    def micro_batches(self, step: int) -> list[MicroBatch]:
        """Return this worker's forward passes of a step, as many as every other worker's."""
        start, stop = self.consumed(step), self.consumed(step + 1)
        batch, size = self.batch, stop - start
        if self.budget is not None:
            return [
                MicroBatch(start, stop, len(chosen) * batch.workers / size if counts else 0.0, chosen)
                for chosen, counts in self.budget.split(start, stop, batch.workers, self.rank)
            ]
        return [
            MicroBatch(start + first, start + end, (end - first) * batch.workers / size if counts else 0.0)
            for first, end, counts in split(size, batch.micro, batch.workers, self.rank)
        ]


def split(size: int, micro: int, workers: int, rank: int) -> list[tuple[int, int, bool]]:
    """Return this worker's passes over range(size) as (start, stop, whether its samples count).

    There are as few as possible, and as many on each worker. They are of even size, and of two samples or
    more where they can be, because batch statistics of one sample mean nothing. A worker that has no samples
    for a pass, which may have collectives, repeats those of another pass.
    """
    passes = -(-size // (micro * workers))
    filled = min(passes * workers, max(-(-size // micro), size // 2))
    return [
        (number * size // filled, (number + 1) * size // filled, counts)
        for number, counts in _dealt(filled, workers, rank)
    ]


def split_by_tokens(
    lengths: Sequence[int], tokens: int, workers: int, rank: int
) -> list[tuple[int, int, bool]]:
    """Return what `split` does, for passes of at most `tokens` padded tokens, or of one sample."""
    ends = cut(lengths, tokens)
    starts = [0, *ends[:-1]]
    return [(starts[number], ends[number], counts) for number, counts in _dealt(len(ends), workers, rank)]


def _dealt(filled: int, workers: int, rank: int) -> list[tuple[int, bool]]:
    """Return the numbers of this worker's passes, neighbours out of `filled`, and whether they count."""
    passes = -(-filled // workers)
    each, more = divmod(filled, workers)
    before, own = rank * each + min(rank, more), each + (rank < more)
    # Worker 0 has samples in every pass, so there is always a pass before a padding one.
    return [(before + index, True) for index in range(own)] + [(before + own - 1, False)] * (passes - own)
