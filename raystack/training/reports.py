"""The metrics of the steps since the last report, over all workers."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from raystack.plan import TrainPlan
from raystack.training.assembly import Assembly
from raystack.training.losses import means, totals
from raystack.training.passes import Passed, mean_loss
from raystack.training.throughput import Throughput
from raystack.training.world import World


class NotFiniteError(Exception):
    """A loss or a gradient is not a finite number; raised on all workers together."""

    def __init__(self, step: int, rule: str, remedy: str) -> None:
        super().__init__(rule)
        self.step, self.rule, self.remedy = step, rule, remedy


class Reports:
    """This worker's losses since the last report, and the reports of all workers."""

    def __init__(self, plan: TrainPlan, world: World, built: Assembly, throughput: Throughput) -> None:
        self._world, self._strategy, self._throughput = world, built.strategy, throughput
        self._schedule, self._length = built.samples.schedule, built.samples.length
        # In fp16 an infinite norm is an overflow: the loss scaler skips the step and lowers the scale.
        self._may_overflow = plan.training.precision == "fp16"
        # Left on the device until the next report: reading one makes the host wait for the device.
        self._losses: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """Take in the loss of a step."""
        self._losses.append(loss)

    def gather(
        self, done: int, norm: Tensor | None, passed: Passed, names: Sequence[str]
    ) -> dict[str, float]:
        """Return the metrics of the step that is the `done`th, the same on every worker but for timings.

        `names` are those of the values beside the loss. Collective. Raises NotFiniteError.
        """
        losses = torch.stack(self._losses).tolist()
        self._losses.clear()
        first_bad = next((index for index, loss in enumerate(losses) if not math.isfinite(loss)), math.inf)
        # The first bad step travels with the loss, so that all workers raise together: one that raised alone
        # would leave the others in a collective.
        count = 1.0 if passed.count is None else float(passed.count)
        everyone = self._world.gather(
            [losses[-1], count, done - len(losses) + 1 + first_bad, *totals(passed.values, names)]
        )
        bad = min(row[2] for row in everyone)
        if math.isfinite(bad):
            raise NotFiniteError(
                int(bad), "the loss is not a finite number", "lower the learning rate or clip"
            )
        if norm is not None and not math.isfinite(float(norm)) and not self._may_overflow:
            raise NotFiniteError(
                done, "the gradient is not a finite number", "clip, or lower the learning rate"
            )
        communication = self._strategy.communication_s()
        return {
            "train/loss": mean_loss([(row[0], row[1]) for row in everyone]),
            **means(names, [row[3:] for row in everyone]),
            **({"train/epoch": self._schedule.consumed(done) / self._length} if self._length else {}),
            **({"train/grad_norm": float(norm)} if norm is not None else {}),
            **self._throughput.report(),
            **({"speed/communication_s": communication} if communication is not None else {}),
        }
