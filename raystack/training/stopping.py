"""The end of a training before its last step: its metric gets no better, or its time is over.

The decision is the same on every worker: all have the same metrics and the same manifest, and rank 0, whose
clock counts, announces its last step as it does for a stop that was asked for (`graceful_stop.py`).
"""

import math
import time
from collections.abc import Mapping
from dataclasses import replace

from raystack.checkpoint import Manifest
from raystack.checkpoint.manifest import Patience
from raystack.config.training import EarlyStopping, Training

TIME = "time"
"""Reason of a stop whose run is then finished."""


class Stopping:
    """What a run's end depends on, from the checkpoint `found` on if there is one."""

    def __init__(self, training: Training, found: Manifest | None) -> None:
        self._limit_s = training.max_time_s
        self._began = time.monotonic()
        self._earlier_s = found.elapsed_s if found is not None else 0.0
        self._early = training.early_stopping
        self.patience = _seen(training.early_stopping, found)
        """State of early stopping; None without it."""
        # By the manifest, which all workers have, and not by a clock.
        self.out_of_time = self._limit_s is not None and self._earlier_s >= self._limit_s
        """Whether the workers have agreed that the time is over."""
        if found is not None:
            self.observe(found.step, found.metrics)

    @property
    def reason(self) -> str | None:
        """Why the training is over; None while it is not."""
        seen = self.patience
        if self._early is not None and seen is not None and seen.stale >= self._early.patience:
            return _no_better(self._early, seen)
        return f"ended early: training.max_time_s={self._limit_s:g} is over" if self.out_of_time else None

    @property
    def elapsed_s(self) -> float:
        """Seconds of training until now, over all attempts."""
        return self._earlier_s + time.monotonic() - self._began

    def due(self) -> str | None:
        """Return the reason to stop if the time is over by this worker's clock."""
        return TIME if self._limit_s is not None and self.elapsed_s >= self._limit_s else None

    def observe(self, step: int, metrics: Mapping[str, float]) -> None:
        """See an evaluation of step `step`, the same on every worker; a second time changes nothing."""
        config, seen = self._early, self.patience
        if config is None or seen is None or not metrics or step <= seen.step:
            return
        value = metrics.get(config.metric, math.nan)
        if _better(config, value, seen.best):
            self.patience = replace(seen, step=step, best=value, best_step=step, stale=0)
        else:
            self.patience = replace(seen, step=step, stale=seen.stale + 1)


def _seen(config: EarlyStopping | None, found: Manifest | None) -> Patience | None:
    if config is None:
        return None
    before = found.patience if found is not None else None
    if before is not None and (before.metric, before.mode) == (config.metric, config.mode):
        return before
    return Patience(config.metric, config.mode, 0)


def _better(config: EarlyStopping, value: float, best: float | None) -> bool:
    if not math.isfinite(value):
        return False
    if best is None:
        return True
    change = best - value if config.mode == "min" else value - best
    return change > config.min_change


def _no_better(config: EarlyStopping, seen: Patience) -> str:
    best = "it never was a number" if seen.best is None else f"best {seen.best:.4g} at step {seen.best_step}"
    by = f" by more than {config.min_change:g}" if config.min_change else ""
    times = f"{seen.stale} evaluation{'s' if seen.stale > 1 else ''}"
    return f"ended early: {config.metric} got no better{by} in {times}, {best}"
