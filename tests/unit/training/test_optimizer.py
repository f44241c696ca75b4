"""The parameter groups of the built-in optimizers."""

import pytest
from torch import nn

from raystack.config.optimizer import SGD, AdamW
from raystack.training.optimizer import make_optimizer


@pytest.mark.parametrize("config", [AdamW(weight_decay=0.5), SGD(kind="sgd", weight_decay=0.5)])
def test_biases_do_not_decay(config: AdamW | SGD) -> None:
    groups = make_optimizer(config, nn.Linear(3, 2).named_parameters()).param_groups
    assert [
        (group["weight_decay"], [parameter.dim() for parameter in group["params"]]) for group in groups
    ] == [(0.5, [2]), (0.0, [1])]
