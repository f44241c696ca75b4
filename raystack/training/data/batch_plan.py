"""The positions that each worker consumes in each step. In: batch and run length. Out: MicroBatches."""

from dataclasses import dataclass

from raystack.plan.batch import Batch


@dataclass(frozen=True)
class MicroBatch:
    """The positions, from `start` to before `stop`, that one worker consumes in one forward pass."""

    start: int
    stop: int
    # With it, the workers' average of summed gradients is the gradient of the mean loss over all samples of a
    # step, also in a last step that is smaller.
    weight: float
    """Factor on the mean loss of this pass."""


@dataclass(frozen=True)
class BatchPlan:
    """The split of a run's `total` samples over steps, workers and forward passes."""

    batch: Batch
    total: int
    rank: int

    @property
    def steps(self) -> int:
        """Number of optimizer steps in the whole run."""
        return -(-self.total // self.batch.global_)

    def consumed(self, step: int) -> int:
        """Return the number of samples that all workers have consumed after `step` steps."""
        return min(step * self.batch.global_, self.total)

    def micro_batches(self, step: int) -> list[MicroBatch]:
        """Return this worker's forward passes of a step.

        One without samples has start == stop and weight 0.
        """
        stop = self.consumed(step + 1)
        size = stop - step * self.batch.global_
        first = step * self.batch.global_ + self.rank * self.batch.accumulation * self.batch.micro
        micro_batches = []
        for pass_start in range(first, first + self.batch.accumulation * self.batch.micro, self.batch.micro):
            start, end = min(pass_start, stop), min(pass_start + self.batch.micro, stop)
            micro_batches.append(MicroBatch(start, end, (end - start) * self.batch.workers / size))
        return micro_batches
