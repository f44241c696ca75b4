"""The exponential moving average of the trained weights.

In: the strategy's live ranges of the weights. Out: averages of the same ranges, so each worker averages what
it holds, and a checkpoint has them as `ema/<parameter>`. Buffers and frozen parameters are the model's own.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from raystack.checkpoint.state import AVERAGES, WEIGHTS, Shard, State
from raystack.config.ema import EMA
from raystack.events import Listener, Warned
from raystack.training.strategy import Strategy

UPDATES = "ema_updates"
"""Name of the number of updates in a training state."""
Pair = tuple[Tensor, Tensor]
"""A range of the weights, and its average."""


class Averages:
    """The averages of this worker's part of the weights; they start as the weights."""

    def __init__(self, config: EMA, strategy: Strategy) -> None:
        self.config = config
        self._strategy = strategy
        self._parts = {name.removeprefix(WEIGHTS): part for name, part in strategy.weights().items()}
        # Small updates would be lost in less than float32.
        self._means = {
            name: part.data.to(torch.promote_types(part.data.dtype, torch.float32), copy=True)
            for name, part in self._parts.items()
        }
        pairs = [(part.data, self._means[name]) for name, part in self._parts.items()]
        self._alike: list[Pair] = [pair for pair in pairs if pair[0].dtype == pair[1].dtype]
        self._lives, self._averages = [live for live, _ in self._alike], [mean for _, mean in self._alike]
        self._rounded: list[Pair] = [pair for pair in pairs if pair[0].dtype != pair[1].dtype]
        """Those of weights in less than float32."""
        self._updates = 0

    @torch.no_grad()
    def update(self, done: int) -> None:
        """Take in the weights after `done` steps of the run, if an update is due then."""
        if done % self.config.every_steps:
            return
        decay = self.config.decay
        if self.config.warmup:  # as num_updates of TensorFlow's ExponentialMovingAverage
            decay = min(decay, (1 + self._updates) / (10 + self._updates))
        self._updates += 1
        if self._alike:
            torch._foreach_lerp_(self._averages, self._lives, 1 - decay)
        for live, mean in self._rounded:
            mean.lerp_(live.to(mean.dtype), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the model compute with the averages in the block, in which nothing may read the weights.

        Collective.
        """
        kept = [(live, live.clone()) for live, _ in self._rounded]
        _exchange(self._alike)
        _copy(self._rounded)
        self._strategy.renew()
        yield
        # Not after an error: it may be this worker's alone, and the others would not take part.
        _exchange(self._alike)
        _copy(kept)
        self._strategy.renew()

    def state(self) -> State:
        """Return the averages, live, and the number of updates, as a checkpoint has them."""
        return self._shards() | {UPDATES: Shard.whole(torch.tensor(self._updates))}

    def load(self, read: Callable[[State], object], stored: Set[str]) -> list[str]:
        """Read what is `stored`, names of a checkpoint; return the parameters that have no average there."""
        state = {name: shard for name, shard in self.state().items() if name in stored}
        read(state)
        if UPDATES in state:
            self._updates = int(state[UPDATES].data)
        names = (name for name, one in self._strategy.bare.named_parameters() if one.requires_grad)
        return [name for name in names if f"{AVERAGES}{name}" not in stored]

    def _shards(self) -> dict[str, Shard]:
        return {
            f"{AVERAGES}{name}": replace(part, data=self._means[name]) for name, part in self._parts.items()
        }


def resumed(config: EMA | None, strategy: Strategy, state: Path | None, tell: Listener) -> Averages | None:
    """Return the averages of a run, read from the training state that it goes on from, if there is one."""
    averages = Averages(config, strategy) if config is not None else None
    if state is None:
        return averages
    from raystack.checkpoint.sharded import names, read  # takes a second, which a new run does not pay

    stored = names(state)
    if averages is None:
        if any(name.startswith(AVERAGES) for name in stored):
            tell(Warned("training.ema: not set, so the averages of the checkpoint end here"))
        return None
    missing = averages.load(partial(read, state), stored)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        what = f"average of '{missing[0]}'{more}" if UPDATES in stored else "averages"
        tell(Warned(f"training.ema: the checkpoint has no {what}; they begin as the weights that it has"))
    return averages


@torch.no_grad()
def _exchange(pairs: Sequence[Pair]) -> None:
    for one, other in pairs:
        kept = one.clone()
        one.copy_(other)
        other.copy_(kept)


@torch.no_grad()
def _copy(pairs: Sequence[Pair]) -> None:
    for to, values in pairs:
        to.copy_(values)
