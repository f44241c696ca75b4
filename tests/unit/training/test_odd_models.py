"""Models and tasks out of the ordinary, on two workers: right, or refused before the first step."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from odd_workers import STRATEGIES, losses, planned, run
from torch import nn

from raystack.checkpoint import MODEL, CheckpointStore, read_spec
from raystack.checkpoint.weights import read_model
from raystack.code.loading import load as load_task
from raystack.errors import ConfigError, TrainingError
from raystack.events import Evaluated, Event, Finished, Saved
from raystack.plan import TrainPlan
from raystack.training.world import World

pytestmark = pytest.mark.slow
ALONE = World(0, 1, torch.device("cpu"))
SCRIPT = Path(__file__).with_name("odd_workers.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("odd")
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=280
    )
    assert ran.returncode == 0, ran.stderr
    read: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return read


def test_before_an_evaluation_and_a_checkpoint_all_workers_have_worker_0s_buffers(
    results: dict[str, Any],
) -> None:
    first, second = results["buffers_of_worker_0"]
    assert first == second
    assert first["largest"] == 10.0
    assert first["norm.running_mean"] == "[1.0, 2.0]"
    assert first["norm.num_batches_tracked"] == "5"
    assert first["grown"] == "[0, 1, 2]"
    assert first["late"] == "[1.0, 1.0]"
    assert first["hidden"] == "True"
    assert first["kept"] == [], "a buffer that is not persistent stays so"


def test_workers_that_have_met_other_metrics_add_them_up_by_name(results: dict[str, Any]) -> None:
    assert results["metrics_by_name"] == {
        "eval/all": (0 + 6 + 7 + 3 + 6) / 5,
        "eval/class_0": 3.0,
        "eval/class_3": 4.5,
        "eval/class_7": 7.0,
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], list[float]]:
    """Losses and gradient norms of plain torch, all tokens of a step in one batch."""
    plan = planned(tmp_path_factory.mktemp("plain"), ALONE, "plain", "task.entry=task:Tokens")
    task: Any = load_task(plan.config.task)
    torch.manual_seed(plan.seed)
    model, config, data = task.model(), plan.training.optimizer, task.train_data()
    assert config.kind == "adamw"
    groups = [
        {"params": [one for one in model.parameters() if one.dim() == dims], "weight_decay": decay}
        for dims, decay in ((1, 0.0), (2, config.weight_decay))
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)
    found: tuple[list[float], list[float]] = ([], [])
    for step in range(6):
        batch = task.collate([data[index % len(data)] for index in range(step * 8, step * 8 + 8)])
        total, count = task.loss(model, batch)
        optimizer.zero_grad()
        (total / count).backward()
        found[0].append(float(total.detach() / count))
        found[1].append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.5)))
        optimizer.step()
    return found


@pytest.mark.parametrize("micro", [8, 2, 1])
@pytest.mark.parametrize("count", ["tensor", "int"])
def test_a_loss_with_a_count_is_a_mean_over_all_terms_of_a_step(
    plain: tuple[list[float], list[float]], tmp_path: Path, micro: int, count: str
) -> None:
    options = ("task.entry=task:Tokens", f"task.args.count={count}", f"training.batch.micro={micro}")
    events = run(planned(tmp_path, ALONE, "one", *options, "training.clip_norm=0.5"), ALONE)
    assert losses(events) == pytest.approx(plain[0], rel=1e-5)
    assert losses(events, "train/grad_norm") == pytest.approx(plain[1], rel=1e-5)


@pytest.mark.parametrize("name", STRATEGIES)
def test_counts_are_brought_together_over_passes_and_workers(
    plain: tuple[list[float], list[float]], results: dict[str, Any], name: str
) -> None:
    found, norms = results["token_means"][f"{name}-0"]
    assert found == pytest.approx(plain[0], rel=1e-5)
    assert norms == pytest.approx(plain[1], rel=1e-5)
    low, _ = results["token_means"][f"{name}-1"]
    assert low == pytest.approx(plain[0], rel=2e-2)


def test_one_element_is_a_scalar(tmp_path: Path) -> None:
    options = ("task.entry=task:Returned", "task.args.what=one element")
    assert len(losses(run(planned(tmp_path, ALONE, "one", *options), ALONE))) == 6


@pytest.mark.parametrize(
    ("what", "got"),
    [
        ("three", r"a tuple of Tensor, int, int"),
        ("dict", "dict"),
        ("list", "list"),
        ("nothing", "NoneType"),
        ("float", "float"),
        ("per sample", r"shape \[8\]"),
        ("detached", "a tensor without a gradient"),
        ("complex", "torch.complex64"),
    ],
)
def test_a_loss_that_is_none_is_told_in_a_sentence(tmp_path: Path, what: str, got: str) -> None:
    rule = rf"^task: loss: loss returns a scalar tensor with a gradient, or a pair .* \(got {got}\); .*$"
    with pytest.raises(TrainingError, match=rule):
        run(planned(tmp_path, ALONE, "one", "task.entry=task:Returned", f"task.args.what={what}"), ALONE)


def test_a_loss_that_is_not_a_number_from_the_start_is_told_with_its_step(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="step 1: the loss is not a finite number"):
        run(planned(tmp_path, ALONE, "one", "task.entry=task:Returned", "task.args.what=not a number"), ALONE)


def test_a_mistake_in_metrics_is_told_before_the_first_step(tmp_path: Path) -> None:
    events: list[Event] = []
    plan = planned(tmp_path, ALONE, "one", "task.entry=task:Measured", "task.args.raise_at=1")
    with pytest.raises(
        ConfigError, match=r"task: metrics: the task raised: KeyError: 'labels'; see task.py:\d+"
    ):
        run(plan, ALONE, events)
    assert events == []


def test_an_evaluation_that_fails_costs_no_training(tmp_path: Path) -> None:
    events: list[Event] = []
    options = [
        "task.entry=task:Measured",
        "training.evaluate.every_steps=6",
        "training.checkpoint.every_steps=4",
    ]
    plan = planned(tmp_path, ALONE, "one", *options, "task.args.raise_at=2")
    with pytest.raises(
        TrainingError, match=r"the evaluation after step 6, rank 0: KeyError: 'labels'; .*step-0000000006$"
    ):
        run(plan, ALONE, events)
    assert [event.step for event in events if isinstance(event, Saved)] == [4, 6]
    mended = run(planned(tmp_path, ALONE, "one", *options), ALONE)
    assert losses(mended) == [], "nothing is left to train"
    (evaluated,) = [event for event in mended if isinstance(event, Evaluated)]
    finished = mended[-1]
    assert isinstance(finished, Finished)
    assert finished.metrics == evaluated.metrics
    store = CheckpointStore(plan.paths.checkpoints)
    manifest = store.manifests()[-1]
    assert store.damaged(manifest) is None
    assert manifest.metrics == evaluated.metrics
    with store.fetch(6, MODEL) as folder:
        assert read_spec(folder).metrics == evaluated.metrics


def model_of(plan: TrainPlan, step: int) -> Any:
    with CheckpointStore(plan.paths.checkpoints).fetch(step, MODEL) as folder:
        return read_model(folder)[1]


def test_extra_state_and_buffers_that_grow_are_in_the_checkpoint_and_the_export(tmp_path: Path) -> None:
    task = "task.entry=task:Remembers"
    whole = planned(tmp_path, ALONE, "whole", task)
    expected = losses(run(whole, ALONE))
    short = losses(run(planned(tmp_path, ALONE, "parts", task, "training.steps=3"), ALONE))
    parts = planned(tmp_path, ALONE, "parts", task)
    assert short + losses(run(parts, ALONE)) == expected
    one, other = (model_of(plan, 6)[0] for plan in (whole, parts))
    assert one.largest == other.largest > 1
    assert len(one.seen) == 6
    assert torch.equal(one.seen, other.seen)
    assert torch.equal(one.late, other.late)


def test_extra_state_that_cannot_be_kept_is_refused_with_its_module(tmp_path: Path) -> None:
    rule = r"task: model: the extra state of '0' is made of .* \(got Remembering\)"
    with pytest.raises(ConfigError, match=rule):
        run(planned(tmp_path, ALONE, "one", "task.entry=task:Remembers", "task.args.keeps=object"), ALONE)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("lazy", r"task: model: '0.weight' of a lazy module has no shape yet; call it on a batch .*"),
        ("frozen", r"task: model: no parameter requires a gradient, .*"),
        ("layout", r"task: model: a checkpoint holds contiguous weights, and '0.weight' is not; .*"),
        ("overlap", r"task: model: '0.weight' and '1.weight' share memory, .*"),
        ("tied wrongly", r"task: model: '.\.bias' and '.\.bias' share memory, .*"),
        ("long complex", r"task: model: 'phase' is of a type that .* \(got torch.complex128\)"),
        (
            "embedding",
            r"training.optimizer: the gradients of '1.weight' are sparse, .* \(got adamw\); .*",
        ),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused_in_a_sentence(
    tmp_path: Path, what: str, message: str
) -> None:
    events: list[Event] = []
    plan = planned(tmp_path, ALONE, "one", "task.entry=task:Shaped", f"task.args.what={what}")
    with pytest.raises(ConfigError, match=rf"^{message}$"):
        run(plan, ALONE, events)
    assert events == []


def test_buffers_of_any_layout_are_kept(tmp_path: Path) -> None:
    plan = planned(tmp_path, ALONE, "one", "task.entry=task:Shaped", "task.args.what=buffers")
    run(plan, ALONE)
    model = model_of(plan, 6)
    assert model.turned.tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    assert model.spread.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("name", ["ddp", "zero1", "zero2", "zero3"])
def test_attributes_and_methods_of_the_model_are_reached_under_every_strategy(
    results: dict[str, Any], tmp_path: Path, name: str
) -> None:
    alone = losses(run(planned(tmp_path, ALONE, "one", "task.entry=task:Encodes"), ALONE))
    assert results["parts"][name] == pytest.approx(alone, rel=1e-5)


def test_fsdp_says_that_it_gathers_weights_in_a_forward_pass(results: dict[str, Any]) -> None:
    assert results["parts"]["fsdp"].endswith("call the model itself, or use strategy=ddp or zero")


def test_a_parameter_without_a_gradient_is_not_decayed(results: dict[str, Any]) -> None:
    assert len(results["untouched"]) == 8
    for used, unused in results["untouched"].values():
        assert used > 0.01
        assert unused == 0.0


def test_ddp_names_the_setting_for_a_parameter_that_gets_no_gradient(results: dict[str, Any]) -> None:
    told, trained = results["unused"]
    assert "training.strategy.find_unused_parameters: '1.weight' has no gradient" in told
    assert len(trained) == 6


@pytest.mark.parametrize("name", STRATEGIES)
def test_gradients_inside_of_a_loss_are_right_or_refused(
    results: dict[str, Any], tmp_path: Path, name: str
) -> None:
    if name in ("fsdp", "zero3"):
        rule = f"training.strategy.kind: {name} cannot have a loss that takes gradients itself"
        assert results["penalties"][name].startswith(rule)
        return
    alone = losses(run(planned(tmp_path, ALONE, "one", "task.entry=task:Penalty"), ALONE))
    assert results["penalties"][name] == pytest.approx(alone, rel=1e-5)
