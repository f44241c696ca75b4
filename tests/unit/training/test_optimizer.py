"""The parameter groups of the built-in optimizers."""

import pytest
import torch
from torch import nn

from raystack.config.optimizer import SGD, AdamW
from raystack.training.optimizer import initialise, make_optimizer


@pytest.mark.parametrize("config", [AdamW(weight_decay=0.5), SGD(kind="sgd", weight_decay=0.5)])
def test_biases_do_not_decay(config: AdamW | SGD) -> None:
    groups = make_optimizer(config, nn.Linear(3, 2).named_parameters()).param_groups
    assert [
        (group["weight_decay"], [parameter.dim() for parameter in group["params"]]) for group in groups
    ] == [(0.5, [2]), (0.0, [1])]


def test_there_is_a_state_to_read_a_checkpoint_into_also_of_sparse_adam() -> None:
    one = nn.Parameter(torch.ones(3, 2))
    optimizer = torch.optim.SparseAdam([one], lr=0.1)
    assert initialise(optimizer)
    assert torch.equal(one, torch.ones(3, 2))
    assert {*optimizer.state[one]} == {"step", "exp_avg", "exp_avg_sq"}
    assert optimizer.param_groups[0]["lr"] == 0.1
