"""Which positions of the sample sequence each worker consumes in each step. In: the batch, the length of the
run. Out: Shares.
"""

from dataclasses import dataclass

from raystack.plan.batch import Batch


@dataclass(frozen=True)
class MicroBatch:
    """What one worker consumes in one forward pass."""

    start: int
    stop: int
    weight: float
    """Factor on the mean loss of this pass. With it, the average over the workers of the summed gradients is
    the gradient of the mean loss over all samples of the step, also where the last step of a run is smaller.
    """


@dataclass(frozen=True)
class BatchPlan:
    """Which positions each worker consumes in each step. `total` is the number of samples of the
    whole run.
    """

    batch: Batch
    total: int
    rank: int

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return -(-self.total // self.batch.global_)

    def consumed(self, step: int) -> int:
        """Samples that all workers have consumed after `step` steps."""
        return min(step * self.batch.global_, self.total)

    def micro_batches(self, step: int) -> list[MicroBatch]:
        """This worker's forward passes of a step; a pass without samples of its own has start == stop and
        weight 0.
        """
        stop = self.consumed(step + 1)
        size = stop - step * self.batch.global_
        first = step * self.batch.global_ + self.rank * self.batch.accumulation * self.batch.micro
        micro_batches = []
        for pass_start in range(first, first + self.batch.accumulation * self.batch.micro, self.batch.micro):
            start, end = min(pass_start, stop), min(pass_start + self.batch.micro, stop)
            micro_batches.append(MicroBatch(start, end, (end - start) * self.batch.workers / size))
        return micro_batches
