"""Which optimizer is right under which strategy. In: the config. Out: nothing, or a PlanError."""

from raystack.config.optimizer import Adafactor, Adagrad, Muon, Own
from raystack.config.strategy import FSDP, Zero
from raystack.config.training import Training
from raystack.errors import PlanError, Problem


def check_optimizer(training: Training) -> None:
    """Raise PlanError if the strategy splits tensors that the optimizer needs whole."""
    optimizer, strategy = training.optimizer, training.strategy
    rule = None
    match optimizer, strategy:
        case Adagrad(), Zero():
            rule = "DeepSpeed makes Adagrad anew, without the groups in which biases and norms do not decay"
        case Adafactor() | Muon(), Zero():
            rule = f"DeepSpeed updates flat tensors, and {optimizer.kind} needs the rows and columns"
        case Adafactor(), FSDP():
            rule = "fsdp splits rows, and torch's adafactor cannot add up the columns over the workers"
        case Own(), Zero() if strategy.offload_optimizer is not None:
            rule = "DeepSpeed offloads built-in optimizers alone"
    if rule is not None:
        others = "ddp" if isinstance(optimizer, Adafactor) else "ddp or fsdp"
        remedy = f"use strategy={others}, or another optimizer"
        raise PlanError(Problem("training.optimizer.kind", rule=rule, got=optimizer.kind, remedy=remedy))
