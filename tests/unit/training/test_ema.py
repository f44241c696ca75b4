"""What a moving average of the weights promises: it is that of the weights of each step, under any strategy
and however often the run ends; it is what is evaluated and exported if asked for; and it changes no step.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from ema_workers import CASES
from sampled_workers import planned, train_on
from torch import Tensor, nn

from raystack.checkpoint import CheckpointStore, read_spec
from raystack.checkpoint.export import export_newest
from raystack.checkpoint.sharded import read_whole
from raystack.checkpoint.state import Shard, Staging, State
from raystack.checkpoint.weights import read_model
from raystack.config import load
from raystack.config.ema import EMA
from raystack.config.optimizer import SGD
from raystack.config.strategy import DDP
from raystack.errors import ConfigError
from raystack.events import Evaluated, Warned
from raystack.events import Event as Told
from raystack.plan.describe import rows
from raystack.plan.footprint import ModelProfile, Pass
from raystack.plan.training import plan_training
from raystack.training.ema import UPDATES, Averages
from raystack.training.optimizer import make_optimizer
from raystack.training.strategy.ddp import DataParallel
from raystack.training.world import World

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("ema_workers.py")
OFTEN = "training.checkpoint={every_steps: 1, keep_last: 20}"
AVERAGED = "training.ema={decay: 0.5, every_steps: 3}"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("ema")
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=280
    )
    assert ran.returncode == 0, ran.stderr
    read: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return read


@pytest.mark.parametrize("case", [case.name for case in CASES])
def test_it_averages_the_weights_of_every_strategy_across_a_resume(
    results: dict[str, Any], case: str
) -> None:
    """The references are the float32 weights in the checkpoints of all steps."""
    found = results[case]
    assert found["averages"] < 1e-6
    assert found["exported"] < 1e-6
    assert found["error"] < (5e-3 if case.startswith("bf16") else 1e-5)
    assert found["weights' own error"] > 1e-2


@pytest.mark.parametrize("case", [case.name for case in CASES])
def test_averages_and_evaluations_change_no_bit_of_the_losses(results: dict[str, Any], case: str) -> None:
    assert len(results[case]["losses"]) == 3
    assert results[case]["trains alike"]


def test_on_two_workers_a_run_that_ends_again_and_again_has_the_same_averages(
    results: dict[str, Any],
) -> None:
    assert results["broken"] == []


# Alone


def run(storage: Path, *overrides: str) -> list[Told]:
    return train_on(planned(storage, *overrides), 0, 1)


def state(storage: Path, step: int | None = None, prefix: str = "ema/") -> dict[str, Tensor]:
    """What the newest checkpoint has, or that of a step."""
    store = CheckpointStore(planned(storage).paths.checkpoints)
    manifest = next(one for one in reversed(store.manifests()) if step in (None, one.step))
    with store.fetch(manifest.step, manifest.state) as folder:
        return read_whole(folder, prefix)


def exported(storage: Path) -> dict[str, Tensor]:
    store = CheckpointStore(planned(storage).paths.checkpoints)
    with store.fetch(store.manifests()[-1].step, "model") as folder:
        return {name: one.detach().flatten() for name, one in read_model(folder)[1].named_parameters()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    assert one
    return all(torch.equal(one[name], other[name]) for name in one)


def warnings(events: list[Told]) -> list[str]:
    return [event.text for event in events if isinstance(event, Warned)]


@pytest.mark.parametrize("warmup", ["true", "false"])
def test_stopped_after_each_step_it_is_that_of_the_unbroken_run_to_the_bit(
    tmp_path: Path, warmup: str
) -> None:
    options = (f"training.ema={{decay: 0.9, every_steps: 3, warmup: {warmup}}}", "training.optimizer.lr=0.1")
    run(tmp_path / "whole", *options)
    for steps in range(1, 9):
        run(tmp_path / "parts", *options, f"training={{epochs: null, steps: {steps}}}")
    assert equal(state(tmp_path / "whole"), state(tmp_path / "parts"))
    assert not equal(state(tmp_path / "whole"), state(tmp_path / "whole", prefix="model/"))


def test_it_is_updated_after_the_steps_that_are_multiples_of_its_interval(tmp_path: Path) -> None:
    run(tmp_path, AVERAGED, OFTEN)
    averages = {step: state(tmp_path, step) for step in range(1, 9)}
    changed = [step for step in range(2, 9) if not equal(averages[step], averages[step - 1])]
    assert changed == [3, 6]
    third, sixth = (state(tmp_path, step, "model/") for step in (3, 6))
    for name in third:
        begun = averages[1][name]
        wanted = ((begun + third[name]) / 2 + sixth[name]) / 2
        assert torch.allclose(averages[6][name], wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("evaluate", [True, False])
@pytest.mark.parametrize("export", [True, False])
def test_the_weights_or_their_averages_are_evaluated_and_exported(
    tmp_path: Path, evaluate: bool, export: bool
) -> None:
    ema = f"training.ema={{decay: 0.5, evaluate: {str(evaluate).lower()}, export: {str(export).lower()}}}"
    options = ("training.optimizer.lr=0.1", "training={epochs: null, steps: 3}")
    (own,) = (event.metrics for event in run(tmp_path / "own", *options) if isinstance(event, Evaluated))
    (found,) = (event.metrics for event in run(tmp_path, ema, *options) if isinstance(event, Evaluated))
    assert (found["eval/error"] == own["eval/error"]) is not evaluate
    assert equal(exported(tmp_path), state(tmp_path, prefix="ema/" if export else "model/"))
    # The verb does the same with a checkpoint that was not exported.
    folder = tmp_path / "out"
    export_newest(planned(tmp_path).paths.checkpoints, folder)
    assert read_spec(folder).averaged is export
    weights = {name: one.detach().flatten() for name, one in read_model(folder)[1].named_parameters()}
    assert equal(weights, exported(tmp_path))


def test_a_checkpoint_has_the_weights_also_where_its_copy_takes_longer_than_an_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("training.optimizer.lr=0.1", "training={epochs: null, steps: 2}", OFTEN)
    run(tmp_path / "own", *options)
    copy, in_place = Staging.copy, Averages.in_place
    exchanged, done = Event(), Event()

    def late(staging: Staging, state: State) -> dict[str, Shard]:
        if "model/0.weight" not in state:
            return copy(staging, state)
        exchanged.wait(0.5)
        copies = copy(staging, state)
        done.set()
        return copies

    @contextmanager
    def long(averages: Averages) -> Iterator[None]:
        with in_place(averages):
            exchanged.set()
            done.wait(0.5)
            yield
        exchanged.clear()
        done.clear()

    monkeypatch.setattr(Staging, "copy", late)
    monkeypatch.setattr(Averages, "in_place", long)
    run(tmp_path, "training.ema={decay: 0.5}", "training.evaluate.every_steps=1", *options)
    for step in (1, 2):
        assert equal(state(tmp_path, step, "model/"), state(tmp_path / "own", step, "model/"))


def test_switched_on_later_it_starts_from_the_weights_and_says_so(tmp_path: Path) -> None:
    run(tmp_path, OFTEN, "training={epochs: null, steps: 4}")
    warmup = "training.ema={decay: 0.9, every_steps: 2, warmup: true}"
    events = run(tmp_path, OFTEN, warmup, "training={epochs: null, steps: 6}")
    (warning,) = warnings(events)
    assert warning.startswith("training.ema: the checkpoint has no averages; they begin as")
    fourth, sixth = (state(tmp_path, step, "model/") for step in (4, 6))
    for name, average in state(tmp_path, 6).items():  # its first update, with the decay 1/10
        wanted = fourth[name] * 0.1 + sixth[name] * 0.9
        assert torch.allclose(average, wanted, rtol=1e-6, atol=1e-8)
    (warning,) = warnings(run(tmp_path, OFTEN))
    assert "the averages of the checkpoint end here" in warning


def test_the_weights_of_several_objectives_are_averaged(tmp_path: Path) -> None:
    grouped = Path(__file__).with_name("grouped") / "config.yaml"
    options = ["task.entry=task:Gan", "training.ema={decay: 0.5}", OFTEN, f"experiment.storage={tmp_path}"]
    plan = plan_training(load(grouped, options), "gan")
    train_on(plan, 0, 1)
    store = CheckpointStore(plan.paths.checkpoints)
    fifth, sixth = store.manifests()[-2:]
    with store.fetch(fifth.step, fifth.state) as before, store.fetch(sixth.step, sixth.state) as after:
        weights, averages, begun = read_whole(after), read_whole(after, "ema/"), read_whole(before, "ema/")
    assert averages.keys() == weights.keys()
    for name, average in averages.items():
        assert torch.allclose(average, (begun[name] + weights[name]) / 2, rtol=1e-6, atol=1e-8)


def test_weights_in_less_than_float32_are_averaged_in_float32_and_put_back_to_the_bit() -> None:
    torch.manual_seed(3)
    low, high = nn.Linear(3, 2, dtype=torch.bfloat16), nn.Linear(2, 1, dtype=torch.float64)
    model = nn.Sequential(low, high)
    high.bias.requires_grad_(False)
    alone = World(0, 1, torch.device("cpu"))
    make: Callable[..., torch.optim.Optimizer] = partial(make_optimizer, SGD(kind="sgd"))
    strategy = DataParallel(DDP(), "fp32", model, make, alone)
    averages = Averages(EMA(decay=0.9), strategy)
    with torch.no_grad():
        low.weight += 0.01
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    averages.update(1)
    held = {name: part.data.clone() for name, part in averages.state().items()}
    assert held["ema/0.weight"].dtype == torch.float32
    assert held["ema/1.weight"].dtype == torch.float64
    assert not torch.equal(held["ema/0.weight"], held["ema/0.weight"].bfloat16().float())
    with averages.in_place():
        assert torch.equal(low.weight.flatten(), held["ema/0.weight"].bfloat16())
        assert torch.equal(high.weight.flatten(), held["ema/1.weight"])
    assert all(torch.equal(one, before[name]) for name, one in model.named_parameters())
    assert all(torch.equal(part.data, held[name]) for name, part in averages.state().items())
    assert set(held) == {"ema/0.weight", "ema/0.bias", "ema/1.weight", UPDATES}


def test_masters_on_nvme_are_refused() -> None:
    offload = "training.strategy.offload_optimizer={device: nvme, path: /nvme}"
    with pytest.raises(ConfigError, match="ema needs the float32 weights in memory"):
        planned(Path("/tmp"), "strategy=zero3", offload, "training.ema={}")


def test_the_plan_says_it_and_counts_its_memory(tmp_path: Path) -> None:
    psi = 1_000_000
    passes = (Pass(1, psi, psi, psi), Pass(64, psi, psi, psi))
    measured = ModelProfile(psi, psi, 4 * psi, 4 * psi, 0, (), psi, passes, passes, "fake")
    config = planned(tmp_path, AVERAGED, "resources.workers=4").config
    plan = plan_training(config, "run", measured)
    assert plan.memory is not None
    found = {one.strategy: one.device["averages"] for one in plan.memory.estimates}
    assert found == {"ddp": 4 * psi, **dict.fromkeys(("fsdp", "zero1", "zero2", "zero3"), psi)}
    shown = dict(rows(plan))
    assert shown["averages"] == "decay 0.5, every 3 steps, evaluated and exported"
    assert "  averages" in shown
    assert "  averages" not in dict(rows(plan_training(planned(tmp_path).config, "run", measured)))
