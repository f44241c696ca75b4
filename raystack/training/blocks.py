"""The errors for a task without `blocks`, in a module of their own that does not import torch."""

from raystack.errors import ConfigError, Problem


def nothing_to_recompute() -> ConfigError:
    """Return the error for `gradient_checkpointing`."""
    rule = "the task has to say which blocks to recompute"
    return ConfigError(
        Problem("training.gradient_checkpointing", rule=rule, remedy="give it a method blocks(model)")
    )


def nothing_to_decay() -> ConfigError:
    """Return the error for `layer_decay`."""
    rule = "the task has to say which blocks its model is made of"
    return ConfigError(
        Problem("training.optimizer.layer_decay", rule=rule, remedy="give it a method blocks(model)")
    )


def nothing_to_wrap() -> ConfigError:
    """Return the error for FSDP's `wrap: blocks`."""
    rule = "the task has to say which blocks its model is made of"
    remedy = "give it a method blocks(model), or drop the key: modules are then wrapped by size"
    return ConfigError(Problem("training.strategy.wrap", rule=rule, got="blocks", remedy=remedy))
