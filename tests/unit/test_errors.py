"""Errors survive the way from a worker to the driver."""

import pickle

import pytest

from raystack import errors
from raystack.errors import Problem, RaystackError

CLASSES = [
    errors.ConfigError,
    errors.PlanError,
    errors.LaunchError,
    errors.TrainingError,
    errors.ServingError,
]


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_is_the_same_after_pickling(kind: type[RaystackError]) -> None:
    error = kind(
        [Problem("a.b", rule="should be 1", got="2", remedy="set a.b=1"), Problem("c", rule="is required")]
    )
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert copy.problems == error.problems
    assert str(copy) == "a.b: should be 1 (got 2); set a.b=1\nc: is required"


def test_each_class_has_its_own_exit_status() -> None:
    assert len({kind.exit_code for kind in CLASSES}) == len(CLASSES)
