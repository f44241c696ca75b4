"""When a run reports, evaluates and saves. In: the training section. Out: intervals in steps or epochs."""

from dataclasses import dataclass
from fractions import Fraction

from raystack.config.training import Periodic, Training
from raystack.errors import ConfigError, PlanError, Problem


@dataclass(frozen=True)
class Interval:
    """An interval in optimizer steps or in epochs; of neither there is none."""

    steps: int | None = None
    epochs: float | None = None

    def __bool__(self) -> bool:
        return self.size is not None

    @property
    def size(self) -> Fraction | None:
        """The number of steps or epochs, as it is written: 0.1 is a tenth."""
        found = self.steps if self.steps is not None else self.epochs
        return None if found is None else Fraction(str(found))

    def passed(self, steps: int, samples: int, length: int | None) -> int:
        """Return how many intervals have ended after `steps` steps over `samples` samples of a run.

        `length` is the number of samples in an epoch, which an interval in epochs needs.
        """
        if self.size is None:
            return 0
        if self.steps is not None:
            return steps // self.steps
        assert length is not None, "whoever begins a training has checked it"
        return int(samples / (self.size * length))

    def __str__(self) -> str:
        if self.size is None:
            return "at the end"
        each = f"{self.steps} steps" if self.steps is not None else f"{self.epochs:g} epochs"
        return f"every {each} and at the end"


@dataclass(frozen=True)
class Cadence:
    """Intervals of a run, at whose end all of it is done once more."""

    log: int
    """Optimizer steps between two reports."""
    evaluate: Interval
    checkpoint: Interval


def plan_cadence(training: Training) -> Cadence:
    """Decide on the intervals; raise PlanError if keep_best or early stopping would miss evaluations."""
    evaluate, save = _interval(training.evaluate), _interval(training.checkpoint)
    if training.checkpoint.keep_best is not None and save:
        # The best checkpoint is chosen by the metrics of its own step, so each one needs an evaluation.
        evaluate = evaluate or save
        _check_multiple(evaluate, save)
    if training.early_stopping is not None and not evaluate:
        rule = "it compares evaluations, and there is one at the end only"
        remedy = "set training.evaluate.every_steps or every_epochs"
        raise PlanError(Problem("training.early_stopping", rule=rule, remedy=remedy))
    return Cadence(log=training.log_every_steps, evaluate=evaluate, checkpoint=save)


def check_length(cadence: Cadence, length: int | None) -> None:
    """Raise ConfigError for an interval in epochs of training data without a length."""
    if length is not None:
        return
    for name, interval in (("evaluate", cadence.evaluate), ("checkpoint", cadence.checkpoint)):
        if interval.epochs is not None:
            rule = "the training data has no length, so it has no epochs"
            remedy = f"give training.{name}.every_steps, or the dataset a __len__"
            got = f"{interval.epochs:g}"
            raise ConfigError(Problem(f"training.{name}.every_epochs", rule=rule, got=got, remedy=remedy))


def _interval(section: Periodic) -> Interval:
    return Interval(section.every_steps, section.every_epochs)


def _check_multiple(evaluate: Interval, save: Interval) -> None:
    """Raise PlanError unless there is an evaluation at the end of each interval of `save`."""
    key = "every_steps" if save.steps is not None else "every_epochs"
    rule = "keep_best needs an evaluation before each checkpoint: a multiple of evaluate."
    if (evaluate.steps is None) != (save.steps is None):
        rule = "keep_best needs an evaluation before each checkpoint: both in steps, or both in epochs"
        raise PlanError(Problem(f"training.checkpoint.{key}", rule=rule, got=str(save)))
    assert evaluate.size is not None
    assert save.size is not None
    if save.size % evaluate.size:
        nearest = max(1, round(save.size / evaluate.size)) * evaluate.size
        raise PlanError(
            Problem(
                f"training.checkpoint.{key}",
                rule=f"{rule}{key}={_shown(evaluate.size)}",
                got=_shown(save.size),
                remedy=f"nearest: training.checkpoint.{key}={_shown(nearest)}",
            )
        )


def _shown(size: Fraction) -> str:
    return str(size) if size.denominator == 1 else f"{float(size):.10g}"
