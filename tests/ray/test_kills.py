"""Workers and drivers that are killed at random steps cost no sample, and change no weight."""

import math
import random
import re
import time
from pathlib import Path

import pytest
import torch
from driver import Driver, alive, attempts, kill, steps
from safetensors.torch import load_file
from torch import Tensor

from raystack.checkpoint import CheckpointStore

pytestmark = [pytest.mark.ray, pytest.mark.slow]

LENGTH, BATCH, EVERY = 330, 32, 2
LATER = (2, 6)
"""Steps of an attempt after which it is killed: the fewest and the most."""
DRIVER_EACH = 5
"""One kill of so many is of the driver."""


@pytest.mark.parametrize(
    ("strategy", "kills"),
    [
        pytest.param("ddp", 2, id="ddp-two"),
        pytest.param("fsdp", 2, id="fsdp-two", marks=pytest.mark.long),
        pytest.param("zero2", 2, id="zero2-two", marks=pytest.mark.long),
        *(
            pytest.param(
                strategy, 34, id=f"{strategy}-many", marks=[pytest.mark.long, pytest.mark.timeout(1800)]
            )
            for strategy in ("ddp", "fsdp", "zero2")
        ),
    ],
)
def test_every_sample_counts_once_and_the_weights_are_those_of_an_unbroken_run(
    strategy: str, kills: int, ray_cluster: str, tmp_path: Path
) -> None:
    # No attempt gets further than LATER's most, a few steps until the kill, and what a checkpoint adds.
    epochs = math.ceil((kills + 1) * (LATER[1] + 4) * BATCH / LENGTH)
    unbroken = Driver(*_options(tmp_path / "unbroken", ray_cluster, strategy, epochs, 0.0))
    assert unbroken.wait() == 0, unbroken.output

    storage = tmp_path / "broken"
    drivers = _broken(kills, storage, _options(storage, ray_cluster, strategy, epochs, 0.05))

    starts = [int(found[1] or 0) for found in _started(drivers)]
    runs = [steps(pages) for pages in attempts(storage / "ledger", 2)]
    assert len(runs) == len(starts) == kills + 1
    ends = [*starts[1:], starts[-1] + len(runs[-1])]
    consumed = [ids for run, start, end in zip(runs, starts, ends, strict=True) for ids in run[: end - start]]
    assert consumed == steps(attempts(tmp_path / "unbroken" / "ledger", 2)[0])
    assert sorted(index for ids in consumed for index in ids) == sorted([*range(LENGTH)] * epochs)

    expected, got = _weights(tmp_path / "unbroken"), _weights(storage)
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        if strategy == "ddp":
            assert torch.equal(got[name], tensor), name
        else:
            torch.testing.assert_close(got[name], tensor, rtol=1e-6, atol=1e-6)


def _broken(kills: int, storage: Path, options: list[str]) -> list[Driver]:
    """Run to the end with so many kills; returns the drivers, of which all but the last were killed."""
    draw = random.Random(0)
    ledger = storage / "ledger"
    drivers = [Driver(*options)]
    for number in range(1, kills + 1):
        victims = _some_steps_later(ledger, number, draw.randint(*LATER), drivers[-1])
        if number % DRIVER_EACH == 2:
            drivers[-1].kill()
            _until_dead(ledger)
            drivers.append(Driver(*options, "--run", _run(storage).name))
        else:
            kill(draw.choice(victims))
    assert drivers[-1].wait() == 0, drivers[-1].output
    return drivers


def _options(storage: Path, address: str, strategy: str, epochs: int, step_s: float) -> list[str]:
    ledger = storage / "ledger"
    ledger.mkdir(parents=True)
    return [
        f"experiment.storage={storage}",
        f"target.address={address}",
        "resources.workers=2",
        f"strategy={strategy}",
        f"task.args={{length: {LENGTH}, step_s: {step_s}, dropout: 0.1, ledger: {ledger}}}",
        f"training.epochs={epochs}",
        f"training.batch.global={BATCH}",
        f"training.checkpoint={{every_steps: {EVERY}, keep_last: 3}}",
        "training.faults.lost={times: 5}",
        # What else has a state, or depends on the step. The weights that are compared are the averages.
        "training.optimizer={groups: [{match: 0.*, lr_scale: 0.1, weight_decay: 0.0}], layer_decay: 0.9}",
        "training.schedule={kind: wsd, warmup_steps: 0, warmup_fraction: 0.1, decay_fraction: 0.3}",
        "training.ema={decay: 0.9, every_steps: 3}",
        "training.freeze=[{match: 3.bias, until_step: 5}]",
    ]


def _started(drivers: list[Driver]) -> list["re.Match[str]"]:
    """The lines that tell of an attempt's start; the group is the step, of one that has gone on from one."""
    pattern = re.compile(r"^[\d,]+ parameters, .*?(?:from step (\d+))?$")
    return [found for driver in drivers for line in driver.lines if (found := pattern.match(line.rstrip()))]


def _some_steps_later(ledger: Path, attempt: int, later: int, driver: Driver) -> list[Path]:
    """Wait until both workers of the attempt are `later` steps far; returns their pages."""
    deadline = time.monotonic() + 120
    while True:
        groups = attempts(ledger, 2)
        if len(groups) == attempt and len(groups[-1]) == 2 and len(steps(groups[-1])) >= later:
            return groups[-1]
        assert driver.process.poll() is None, driver.output
        assert time.monotonic() < deadline, driver.output
        time.sleep(0.01)


def _until_dead(ledger: Path) -> None:
    deadline = time.monotonic() + 60
    while alive(ledger):
        assert time.monotonic() < deadline, "its workers outlive a driver"
        time.sleep(0.05)


def _run(storage: Path) -> Path:
    (folder,) = (storage / "runs").iterdir()
    return folder


def _weights(storage: Path) -> dict[str, Tensor]:
    """What the run has exported at its end."""
    store = CheckpointStore(str(_run(storage) / "checkpoints"))
    step = store.newest()
    assert step is not None
    return load_file(f"{store.folder(step)}/model/model.safetensors")
