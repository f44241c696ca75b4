"""Parameter groups, layer-wise decay, clipping by value, freezing and every optimizer: each run trains as a
plain torch loop does, under every strategy, across a resume on another number of workers; or it is refused
before its first step with the reason.
"""

import gc
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from grouped_workers import CASES, CONFIG, STEPS, STRATEGIES
from parity_workers import Record, run
from torch import nn

from raystack.checkpoint import MODEL, CheckpointStore
from raystack.checkpoint.weights import read_model
from raystack.config import load
from raystack.config.training import Training
from raystack.errors import ConfigError, PlanError
from raystack.events import Event, Stepped
from raystack.plan import plan_training
from raystack.plan.footprint import Case
from raystack.training.freeze import freeze
from raystack.training.groups import settings_of
from raystack.training.profile.measure import measure
from raystack.training.world import World

SCRIPT = Path(__file__).with_name("grouped_workers.py")

Table = dict[str, dict[str, dict[str, dict[str, Any]]]]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    folder = tmp_path_factory.mktemp("grouped")
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=400
    )
    assert ran.returncode == 0, ran.stderr
    read: Table = json.loads((folder / "results.json").read_text())
    return read


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "strategy", "way"), [(case, *cell) for case in CASES for cell in CASES[case].cells]
)
def test_it_trains_as_in_a_plain_loop_on_any_number_of_workers(
    table: Table, case: str, strategy: str, way: str
) -> None:
    cell = table[case][strategy][way]
    # Muon makes matrices orthogonal in bfloat16, in which fsdp's order of addition is another one.
    weights = 3e-3 if (case, strategy) == ("muon", "fsdp") else 2e-6
    assert cell == {"losses": pytest.approx(0, abs=2e-6), "weights": pytest.approx(0, abs=weights)}


def training(*overrides: str) -> Training:
    return load(CONFIG, [*overrides]).training


def model() -> nn.ModuleDict:
    made = nn.ModuleDict({"embed": nn.Linear(2, 2), "blocks": nn.ModuleList([nn.Linear(2, 2)] * 1)})
    made["head"] = nn.Linear(2, 2, bias=False)
    made["head"].weight = made["embed"].weight
    return made


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            "[{match: 'embde.*'}]",
            r"groups.0.match: no parameter .* did you mean 'embed.\*'\?",
        ),
        ("[{match: embed}]", r"did you mean 'embed.\*'\?"),
        ("[{match: ['blocks.*', xyz]}]", r"the names are embed.weight, embed.bias, blocks.0.weight, \.\.\."),
        (
            "[{match: '*'}, {match: 'embed.*'}]",
            r"groups.1.match: all .* has an earlier group",
        ),
    ],
)
def test_a_group_without_a_parameter_is_refused(groups: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_of(training(f"training.optimizer.groups={groups}"), model(), [], {})


def test_a_tied_weight_is_found_by_each_of_its_names() -> None:
    made = settings_of(
        training("training.optimizer.groups=[{match: head.weight, lr_scale: 0.5}]"), model(), [], {}
    )
    assert {name: one.lr_scale for name, one in made.items()} == {
        "embed.weight": 0.5,
        "embed.bias": 1.0,
        "blocks.0.weight": 1.0,
        "blocks.0.bias": 1.0,
    }


def test_layer_decay_needs_the_tasks_blocks() -> None:
    with pytest.raises(ConfigError, match=r"layer_decay: the task has to say which blocks"):
        settings_of(training("training.optimizer.layer_decay=0.9"), model(), [], {})


def test_freezing_everything_or_nothing_is_refused() -> None:
    for entries, message in (
        ("[{match: xyz}]", r"training.freeze.0.match: no parameter has such a name"),
        ("[{match: '*', until_step: 3}]", r"training.freeze: it leaves nothing to train"),
    ):
        with pytest.raises(ConfigError, match=message):
            freeze(model(), training(f"training.freeze={entries}").freeze)


def test_what_two_entries_freeze_is_frozen_as_long_as_either_says() -> None:
    entries = "[{match: 'embed.*', until_step: 3}, {match: '*.bias', until_step: 5}, {match: blocks.0.bias}]"
    made = model()
    assert freeze(made, training(f"training.freeze={entries}").freeze) == {"embed.weight": 3, "embed.bias": 5}
    assert [name for name, one in made.named_parameters() if not one.requires_grad] == ["blocks.0.bias"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nothing", r"task: optimizer: it returns a torch.optim.Optimizer \(got NoneType\)"),
        ("forgets", r"it leaves out 'head.weight'; give it all parameters, or freeze"),
        ("lbfgs", r"its step needs a closure"),
        ("counting", r"its groups have state \('k'\)"),
    ],
)
def test_an_optimizer_that_cannot_be_kept_is_refused_before_the_first_step(
    tmp_path: Path, kind: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train_here(tmp_path, "task.entry=task:Own", f"task.args={{kind: {kind}}}")


def test_the_optimizer_has_one_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the task makes its own optimizer .* drop training.optimizer"):
        train_here(tmp_path, "task.entry=task:Own", "task.args={kind: lion}", "training.optimizer.lr=0.5")
    with pytest.raises(ConfigError, match=r"give it a method optimizer\(parameters\)"):
        train_here(tmp_path, "training.optimizer.kind=task")


def test_a_resumed_run_keeps_its_optimizer(tmp_path: Path) -> None:
    adam, own = "training.optimizer.kind=adam", ["task.entry=task:Own", "task.args={kind: lion}"]
    train_here(tmp_path / "one", "training.optimizer.kind=adamw", stop_at=2)
    with pytest.raises(ConfigError, match=r"keeps its training.optimizer, which was adamw \(got adam\)"):
        train_here(tmp_path / "one", adam)
    with pytest.raises(ConfigError, match=r"which was adamw \(got the task's Lion\)"):
        train_here(tmp_path / "one", *own)
    train_here(tmp_path / "two", *own, stop_at=2)
    with pytest.raises(ConfigError, match=r"which was the task's Lion \(got the task's Adamax\)"):
        train_here(tmp_path / "two", own[0], "task.args={kind: adamax}")


def test_the_reported_rate_is_the_peak_of_what_has_no_group(tmp_path: Path) -> None:
    groups = "training.optimizer={lr: 0.5, groups: [{match: '*embed*', lr_scale: 0.1}]}"
    lines: list[Event] = []
    train_here(tmp_path, groups, "training.schedule={kind: linear}", tell=lines.append)
    rates = [event.metrics["train/lr"] for event in lines if isinstance(event, Stepped)]
    assert rates == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1, 0.0])


@pytest.mark.parametrize("case", ["groups", "freeze", "lion", "gan", "muon"])
def test_a_run_that_is_stopped_at_every_step_ends_with_the_same_bits(tmp_path: Path, case: str) -> None:
    train_here(tmp_path / "whole", *CASES[case].overrides)
    for step in range(2, STEPS):
        train_here(tmp_path / "parts", *CASES[case].overrides, stop_at=step)
    train_here(tmp_path / "parts", *CASES[case].overrides)
    whole, parts = (weights(tmp_path / name) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The exported weights of the run in a folder."""
    plan = plan_training(load(CONFIG, [f"experiment.storage={folder}"]), "grouped-1")
    with CheckpointStore(plan.paths.checkpoints).fetch(STEPS, MODEL) as model:
        return dict(read_model(model)[1].state_dict())


def train_here(
    folder: Path, *overrides: str, stop_at: int | None = None, tell: Callable[[Event], None] | None = None
) -> None:
    """Train in this process."""
    folder.mkdir(exist_ok=True)
    plan = plan_training(load(CONFIG, [f"experiment.storage={folder}", *overrides]), "grouped-1")
    record = Record()

    def both(event: Event) -> None:
        record(event)
        if tell is not None:
            tell(event)

    run(plan, World(0, 1, torch.device("cpu")), both, stop_at=stop_at)  # type: ignore[arg-type]


def test_the_memory_plan_knows_what_an_optimizer_keeps() -> None:
    def numbers(optimizer: str) -> float:
        config = load(CONFIG, [f"training.optimizer={optimizer}"])
        measured = measure(config, [1])
        batch = plan_training(config, "grouped-1").batch
        return Case(measured, config.training, batch, "cpu").states * measured.trainable

    matrices, vectors, rows = 3 * 36 + 12, 6 + 2 * 18 + 12 + 2, 3 * 12 + 8
    assert numbers("{kind: adam}") == 2 * (matrices + vectors)
    assert numbers("{kind: rmsprop}") == numbers("{kind: adagrad}") == matrices + vectors
    assert numbers("{kind: rmsprop, momentum: 0.5}") == 2 * (matrices + vectors)
    assert numbers("{kind: muon}") == pytest.approx(matrices + 2 * vectors)
    assert numbers("{kind: adafactor}") == pytest.approx(rows + vectors)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("both", r"'critic' and 'generator' both train 'critic.0.weight'"),
        ("left", r"none of them trains 'critic.2.weight'; freeze it"),
        ("never", r"one of them has to be trained in every step"),
        ("name", r"objectives\['critic'\]: no parameter has such a name .* did you mean 'critic.\*'"),
    ],
)
def test_objectives_that_do_not_share_the_parameters_are_refused(
    tmp_path: Path, fault: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train_here(tmp_path, "task.entry=task:Gan", f"task.args={{fault: {fault}}}")


def test_each_objective_reports_its_loss_and_what_it_returns_beside_it(tmp_path: Path) -> None:
    lines: list[Event] = []
    train_here(tmp_path, "task.entry=task:Gan", tell=lines.append)
    steps = [event.metrics for event in lines if isinstance(event, Stepped)]
    for metrics in steps[::2]:
        assert metrics["train/loss"] == pytest.approx(metrics["train/critic"] + metrics["train/generator"])
        assert metrics["train/size"] > 0
    for metrics in steps[1::2]:  # not the generator's turn
        assert metrics["train/loss"] == pytest.approx(metrics["train/critic"])
        assert metrics.keys().isdisjoint({"train/generator", "train/size"})


def test_the_memory_of_several_objectives_is_measured(tmp_path: Path) -> None:
    config = load(CONFIG, ["task.entry=task:Gan"])
    measured = measure(config, [1, 8])
    assert measured.how == "fake"
    assert measured.passes[1].activations > measured.passes[0].activations > 0


@pytest.mark.parametrize(
    ("case", "strategy", "reason"),
    [
        ("adagrad", "zero2", "DeepSpeed makes Adagrad anew"),
        ("adafactor", "zero1", "needs the rows and columns"),
        ("adafactor", "fsdp", "cannot add up the columns"),
        ("muon", "zero3", "needs the rows and columns"),
        ("lamb", "fsdp", "updates an element by others"),
        ("lamb", "zero3", "updates an element by others"),
        ("gan", "fsdp", "needs its parameters whole"),
        ("gan", "zero1", "needs its parameters whole"),
    ],
)
def test_what_is_not_right_under_a_strategy_is_refused_before_the_first_step(
    tmp_path: Path, case: str, strategy: str, reason: str, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(lambda: dist.destroy_process_group() if dist.is_initialized() else None)
    with pytest.raises((ConfigError, PlanError), match=reason):
        train_here(tmp_path, *STRATEGIES[strategy], *CASES[case].overrides)


def test_a_thread_can_fork_after_a_run_under_fsdp_in_another(tmp_path: Path) -> None:
    """As a loader process is forked. The child frees what only other threads held, such as their caches."""
    train_here(tmp_path, "strategy=fsdp")
    dist.destroy_process_group()
    gc.collect()
    child = get_context("fork").Process(target=int)
    thread = threading.Thread(target=child.start)
    thread.start()
    thread.join(60)
    child.join(20)
    if (exitcode := child.exitcode) is None:
        child.kill()
    assert exitcode == 0
