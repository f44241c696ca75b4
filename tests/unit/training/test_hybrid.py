"""What hybrid sharding promises on four gloo workers: ddp's training, and checkpoints that fit any groups."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from raystack.checkpoint.state import Shard, share

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("hybrid_workers.py")
CHANGES = ["2x2 to 4", "4 to 2x2", "2x2 to ddp", "1 to 2x2", "2x2 to 1", "2x2 to second", "second to 4"]
Results = dict[str, Any]
"""`{step: [loss, gradient norm, error of the averages]}` by case; `apart` has the names of what differs
between two copies.
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("hybrid")
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=280
    )
    assert ran.returncode == 0, ran.stderr
    read: Results = json.loads((folder / "results.json").read_text())
    return read


def apart(one: dict[str, list[float]], other: dict[str, list[float]]) -> float:
    """Largest relative difference of the losses and norms of the steps of `one`."""
    assert one
    return max(
        abs(mine / theirs - 1) for step in one for mine, theirs in zip(one[step], other[step], strict=True)
    )


@pytest.mark.parametrize(
    "case", ["2x2", "1x4", "2x2 sgd", "2x2 offload", "2x2 kept", "second", "second persistent"]
)
def test_losses_norms_and_averages_are_those_of_ddp(results: Results, case: str) -> None:
    expected = results["ddp sgd" if "sgd" in case else "ddp"]
    assert list(results[case]) == ["1", "2", "3", "4", "5", "6"]
    assert apart(results[case], expected) < 1e-6


@pytest.mark.parametrize(("case", "alike"), [("2x2 bf16", "4 bf16"), ("second bf16", "zero3 bf16")])
def test_bf16_is_that_of_one_group(results: Results, case: str, alike: str) -> None:
    assert apart(results[case], results[alike]) < 1e-2
    assert apart(results[case], results["ddp"]) > 1e-5


@pytest.mark.parametrize("case", CHANGES)
def test_a_checkpoint_goes_on_in_other_groups(results: Results, case: str) -> None:
    assert list(results[case]) == ["4", "5", "6"]
    assert apart(results[case], results["ddp"]) < 1e-6


def test_copies_of_a_group_stay_equal_to_the_bit(results: Results) -> None:
    assert results["apart"] == []


def test_a_second_copy_of_zeros_weights_is_split_over_its_group(results: Results) -> None:
    assert results["halves"]
    assert all(results["halves"].values())


def test_copies_of_a_range_are_written_once_a_share_by_each() -> None:
    whole = torch.arange(11)
    ranges = ((0, 6), (6, 11))
    written = [
        share({"model/x": Shard(whole[start:stop], start, 11, copy=copy, copies=3)}, rank=0, size=6)
        for start, stop in ranges
        for copy in range(3)
    ]
    parts = sorted((part["model/x"].start, part["model/x"].data.tolist()) for part in written)
    assert [value for _, values in parts for value in values] == whole.tolist()
    assert [start for start, _ in parts] == [values[0] for _, values in parts]
