"""What a run promises, on one worker and without Ray: the same losses however it is split, stopped or
resumed.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import pytest
import torch

from raystack.checkpoint import CheckpointStore
from raystack.checkpoint.example import read_example
from raystack.checkpoint.model import read_task
from raystack.checkpoint.statistics import read_statistics
from raystack.checkpoint.weights import read_model
from raystack.code.archive import pack
from raystack.errors import ConfigError, PausedError, TrainingError
from raystack.events import Evaluated, Event, Finished, Saved, Stepped, Warned
from raystack.plan import TrainPlan
from raystack.task import MapDataset
from raystack.training import chunks
from raystack.training.graceful_stop import GracefulStop
from raystack.training.loop import WorkerSpec, train
from raystack.training.watchdog.hang import Orders
from raystack.training.watchdog.heartbeat import HeartbeatSender
from raystack.training.world import World

pytestmark = pytest.mark.slow
PlanTiny = Callable[..., TrainPlan]


class HasRows(Protocol):
    """The tiny task's data."""

    x: torch.Tensor


def run(plan: TrainPlan, events: list[Event] | None = None, stop_at: int | None = None) -> list[Event]:
    """Train on one worker, from the newest checkpoint if there is one; `stop_at`: asked to stop when that
    step was reported.
    """
    events = [] if events is None else events
    folder = plan.config.task.folder
    assert folder is not None
    world = World.join(0, 1, torch.device("cpu"))
    graceful_stop = GracefulStop(world)

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, Stepped) and event.step == stop_at:
            graceful_stop.requested = "terminate"

    heartbeats = HeartbeatSender(
        lambda heartbeat: Orders(), attempt=world.attempt, rank=0, world=1, node="here", folder=None
    )
    events.append(train(WorkerSpec(plan, pack(folder)), world, listen, graceful_stop, heartbeats))
    return events


def losses(events: list[Event]) -> dict[int, float]:
    return {event.step: event.metrics["train/loss"] for event in events if isinstance(event, Stepped)}


def test_accumulation_and_recomputation_change_no_loss(plan_tiny: PlanTiny) -> None:
    whole = losses(run(plan_tiny()))
    assert len(whole) == 6
    assert losses(run(plan_tiny("training.batch.accumulation=4", run_id="tiny-2"))) == pytest.approx(
        whole, rel=1e-5
    )
    assert losses(run(plan_tiny("training.gradient_checkpointing=true", run_id="tiny-3"))) == pytest.approx(
        whole, rel=1e-5
    )
    assert losses(run(plan_tiny("experiment.seed=4", run_id="tiny-4"))) != pytest.approx(whole, rel=1e-2)


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(plan_tiny: PlanTiny) -> None:
    options = (
        "task.args.dropout=0.5",
        "training.epochs=4",
        "training.checkpoint.every_steps=5",
        "training.clip_norm=1.0",
    )
    unbroken = losses(run(plan_tiny(*options)))
    with pytest.raises(TrainingError):
        run(plan_tiny(*options, "task.args.raise_at=12", run_id="tiny-2"))
    found = CheckpointStore(plan_tiny(run_id="tiny-2").paths.checkpoints).latest_good().manifest
    assert found is not None
    assert (found.step, found.samples) == (10, 320)
    resumed = losses(run(plan_tiny(*options, run_id="tiny-2")))
    assert resumed == {step: loss for step, loss in unbroken.items() if step > 10}


def test_a_run_that_is_told_to_stop_leaves_a_checkpoint_of_that_very_step(plan_tiny: PlanTiny) -> None:
    options = ("task.args.dropout=0.5", "training.log_every_steps=1")
    unbroken = losses(run(plan_tiny(*options)))
    events: list[Event] = []
    with pytest.raises(PausedError, match=r"step 4: .*step-0000000004; go on with --resume") as paused:
        run(plan_tiny(*options, run_id="tiny-2"), events, stop_at=3)
    assert (paused.value.why, paused.value.exit_code) == ("terminate", 75)
    assert {**losses(events), **losses(run(plan_tiny(*options, run_id="tiny-2")))} == unbroken


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(plan_tiny: PlanTiny) -> None:
    options = ("training.epochs=4", "training.checkpoint={every_steps: 3, keep_last: 4}")
    unbroken = losses(run(plan_tiny(*options)))
    with pytest.raises(TrainingError):
        run(plan_tiny(*options, "task.args.raise_at=11", run_id="tiny-2"))
    checkpoints = Path(plan_tiny(run_id="tiny-2").paths.checkpoints)
    (damaged,) = (checkpoints / "step-0000000009" / "state").rglob("*.distcp")
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    (checkpoints / "step-0000000006" / "manifest.json").unlink()
    events = run(plan_tiny(*options, run_id="tiny-2"))
    warnings = [event.text for event in events if isinstance(event, Warned)]
    assert "step-0000000009" in warnings[0]
    assert "damaged" in warnings[0]
    assert "step-0000000006: this checkpoint has no manifest" in warnings[1]
    assert losses(events) == {step: loss for step, loss in unbroken.items() if step > 3}


def test_a_last_step_smaller_than_the_batch_is_taken_whole(plan_tiny: PlanTiny, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    run(plan_tiny("task.args.length=70", f"task.args.ledger={ledger}", "training.batch.accumulation=2"))
    (file,) = ledger.iterdir()
    passes = [[int(index) for index in line.split()] for line in file.read_text().splitlines()]
    consumed = [index for ids in passes[:9] for index in ids]
    assert sorted(consumed[:70]) == sorted(consumed[70:140]) == list(range(70))


def test_evaluation_is_exact_and_best_and_last_are_kept(plan_tiny: PlanTiny) -> None:
    best = "{metric: eval/error, mode: min}"
    options = (
        "training.epochs=8",
        "training.evaluate.batch=7",
        "training.checkpoint.every_steps=4",
        "training.checkpoint.keep_last=1",
    )
    events = run(plan_tiny(*options, f"training.checkpoint.keep_best={best}"))
    evaluated = {event.step: event.metrics for event in events if isinstance(event, Evaluated)}
    assert (
        list(evaluated)
        == [event.step for event in events if isinstance(event, Saved)]
        == [4, 8, 12, 16, 20, 24]
    )
    for metrics in evaluated.values():
        assert metrics["eval/ratio"] == pytest.approx(metrics["eval/error"] / 2)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.chosen == min(evaluated, key=lambda step: evaluated[step]["eval/error"])
    store = CheckpointStore(plan_tiny().paths.checkpoints)
    assert {manifest.step for manifest in store.manifests()} == {finished.chosen, 24}
    with store.fetch(finished.chosen, "model") as folder:
        task, model, card = read_model(folder)
    data = cast(MapDataset, task.eval_data())
    x, y = (torch.stack([torch.as_tensor(data[index][part]) for index in range(37)]) for part in (0, 1))
    with torch.no_grad():
        assert float((task.predict(model, {"x": x})["y"] - y).pow(2).mean()) == pytest.approx(
            card.metrics["eval/error"], rel=1e-5
        )


def test_a_loss_that_is_not_finite_stops_the_run_with_the_step_and_the_last_good_checkpoint(
    plan_tiny: PlanTiny,
) -> None:
    plan = plan_tiny("task.args.nan_at=5", "training.checkpoint.every_steps=2", "training.log_every_steps=3")
    with pytest.raises(
        TrainingError, match=r"step 5: the loss is not a finite number; .* checkpoint: .*/step-0000000004"
    ):
        run(plan)
    found = CheckpointStore(plan.paths.checkpoints).latest_good().manifest
    assert found is not None
    assert found.step == 4


def test_what_the_task_raises_is_told_with_its_line(plan_tiny: PlanTiny) -> None:
    with pytest.raises(
        TrainingError, match=r"step 2, rank 0: ValueError: a bad sample; see task.py:\d+; no checkpoint"
    ):
        run(plan_tiny("task.args.raise_at=2"))
    with pytest.raises(
        ConfigError, match=r"task: model: the task raised: RuntimeError: no such layer; see task.py:\d+"
    ):
        run(plan_tiny("task.args.broken=model"))
    with pytest.raises(
        ConfigError, match=r"task: train_data: a dataset has at least one sample \(got length 0\)"
    ):
        run(plan_tiny("task.args.length=0"))


def test_what_keep_best_asks_for_in_vain_is_told_before_the_training(plan_tiny: PlanTiny) -> None:
    rule = (
        r"training.checkpoint.keep_best.metric: the task does not measure it \(got eval/eror\); did you mean"
        r" 'eval/error'\?"
    )
    with pytest.raises(ConfigError, match=rule):
        run(plan_tiny("training.checkpoint.keep_best={metric: eval/eror, mode: min}"))


def test_a_gate_that_no_model_could_pass_is_told_before_the_training(
    plan_tiny: PlanTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"registry.gates.champion.metric: the task does not measure it"):
        run(plan_tiny("registry.gates={champion: {metric: eval/eror}}"))
    monkeypatch.setattr(chunks, "CHUNKS", 4)
    rule = r"registry.gates.champion.alpha: no version could pass: 37 samples in 4 chunks give a p of 0.0625"
    with pytest.raises(ConfigError, match=rule):
        run(plan_tiny("registry.gates={champion: {metric: eval/error, mode: min}}"))


def test_a_run_is_not_resumed_on_other_data(plan_tiny: PlanTiny) -> None:
    run(plan_tiny())
    with pytest.raises(ConfigError, match=r"task: train_data: .* which had 96 samples \(got 97 samples\)"):
        run(plan_tiny("task.args.length=97"))
    with pytest.raises(
        ConfigError, match=r"training.data.shuffle: a resumed run keeps .*, which was true \(got false\)"
    ):
        run(plan_tiny("training.data.shuffle=false"))


def test_bf16_follows_fp32(plan_tiny: PlanTiny) -> None:
    assert losses(run(plan_tiny("training.precision=bf16"))) == pytest.approx(
        losses(run(plan_tiny(run_id="tiny-2"))), rel=0.05
    )


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor"
)  # the compiler looks at its inputs' gradients
def test_compile_compiles_the_blocks(plan_tiny: PlanTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_module(module, backend=keep))
    plain = losses(run(plan_tiny(run_id="tiny-2")))
    assert losses(run(plan_tiny("training.compile=true"))) == pytest.approx(plain, rel=1e-5)
    assert graphs


def test_the_last_checkpoint_has_a_sample_of_the_eval_data(plan_tiny: PlanTiny) -> None:
    plan = plan_tiny()
    run(plan)
    store = CheckpointStore(plan.paths.checkpoints)
    last = store.manifests()[-1]
    with store.fetch(last.step, "model") as folder:
        example, task = read_example(folder), read_task(folder)
    samples = cast(MapDataset, task.eval_data())
    assert example is not None
    assert example["x"].tolist() == [samples[0][0].tolist()]
    assert "model/example.safetensors" in last.files


def test_the_model_has_statistics_of_the_eval_data_and_of_its_outputs(plan_tiny: PlanTiny) -> None:
    plan = plan_tiny()
    run(plan)
    store = CheckpointStore(plan.paths.checkpoints)
    last = store.manifests()[-1]
    assert store.damaged(last) is None
    with store.fetch(last.step, "model") as folder:
        found = read_statistics(folder)
        task, module, _ = read_model(folder)
        listed = json.loads((folder / "checksums.json").read_text())
    assert "statistics.json" in listed
    assert found is not None
    assert (found.source, found.samples) == ("eval_data", 37)
    x = cast(HasRows, task.eval_data()).x
    assert [feature.mean for feature in found.inputs["x"]] == pytest.approx(x.mean(0).tolist(), abs=1e-6)
    with torch.no_grad():
        y = module(x)
    assert found.outputs["y"][0].max == pytest.approx(float(y.max()), abs=1e-6)


def test_a_task_that_raises_in_predict_is_trained_without_statistics(
    plan_tiny: PlanTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such head")

    monkeypatch.setattr("raystack.training.data_statistics._predict", broken)
    events = run(plan_tiny())
    assert isinstance(events[-1], Finished)
    (warning,) = [event.text for event in events if isinstance(event, Warned)]
    assert warning.endswith("for drift of what is served: RuntimeError: no such head")
