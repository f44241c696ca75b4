"""An evaluation leaves each module in the mode that it had."""

import pytest
from torch import nn

from raystack.training.modes import evaluating


class Stubborn(nn.Module):
    """Is never trained, as a frozen backbone that overrides `train`; counts its switches."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.switches = nn.BatchNorm1d(2), 0
        self.train()

    def train(self, mode: bool = True) -> "Stubborn":
        self.switches += 1
        return super().train(False)


def modes(model: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


def test_frozen_parts_are_in_eval_mode_after_an_evaluation_as_before() -> None:
    frozen = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout()).eval()
    frozen[2].train()  # dropout for an estimate of uncertainty, inside of a frozen part
    model = nn.Sequential(frozen, Stubborn(), nn.Linear(2, 1))
    before = modes(model)
    assert set(before.values()) == {True, False}
    with evaluating(model):
        assert not any(modes(model).values())
    assert modes(model) == before


def test_an_evaluation_that_fails_leaves_the_modes_as_well() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2).eval())
    before = modes(model)
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError("labels")
    assert modes(model) == before


class Merging(nn.Module):
    """An adapter that is merged into its layer in eval mode, and taken out of it again in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.merged = False

    def train(self, mode: bool = True) -> "Merging":
        self.merged = not mode
        return super().train(mode)


def test_what_a_switch_of_the_mode_does_is_undone() -> None:
    model = nn.Sequential(Merging(), Merging().eval())
    with evaluating(model):
        assert model[0].merged
    assert [module.merged for module in model] == [False, True]
