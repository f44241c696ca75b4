"""What is recorded beside MLflow, read by TensorBoard's own reader and from W&B's offline files."""

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

from raystack.errors import ConfigError, PausedError, PlanError, TrainingError
from raystack.events import Event, Stepped, Warned
from raystack.launch import local
from raystack.outcome import Outcome
from raystack.plan import TrainPlan
from raystack.trackers import Recorder, open_trackers
from raystack.trackers.offline import folders, records
from raystack.training.driver.fit import fit

PlanTiny = Callable[..., TrainPlan]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("wandb_ended")]
BOARD, WANDB = "tracking.tensorboard={}", "tracking.wandb={mode: offline, project: small}"


def trained(plan: TrainPlan, *, resume: bool = False) -> tuple[Outcome, list[str]]:
    """The outcome, and the warnings."""
    warnings: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Warned):
            warnings.append(event.text)

    return fit(plan, listen, resume=resume), warnings


def board(plan: TrainPlan) -> EventAccumulator:
    assert plan.trackers.tensorboard is not None
    return EventAccumulator(f"{plan.trackers.tensorboard}/{plan.run_id}").Reload()


def points(plan: TrainPlan, name: str) -> list[tuple[int, float]]:
    """(step, value) of a metric in TensorBoard."""
    return [(event.step, event.value) for event in board(plan).Scalars(name)]


def text(plan: TrainPlan, name: str) -> list[tuple[int, str]]:
    events = board(plan).Tensors(name)
    return [(event.step, event.tensor_proto.string_val[0].decode()) for event in events]


def offline(plan: TrainPlan) -> list[Record]:
    """The records of all starts, in their order."""
    above = Path(plan.config.experiment.storage, "wandb")
    files = [folder / f"run-{plan.run_id}.wandb" for folder in folders(above, plan.run_id)]
    return [record for file in files for record in records(file)]


def history(plan: TrainPlan, name: str) -> list[tuple[int, float]]:
    """(step, value) of a metric in W&B's files."""
    rows = [record.history for record in offline(plan) if record.HasField("history")]
    return [
        (row.step.num, json.loads(item.value_json))
        for row in rows
        for item in row.item
        if "/".join(item.nested_key) == name
    ]


def summary(plan: TrainPlan) -> dict[str, Any]:
    """W&B's latest value of each key."""
    found: dict[str, Any] = {}
    for record in offline(plan):
        for item in record.summary.update:
            found["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return found


@pytest.fixture(scope="module")
def hushed() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HUSH", "the-very-secret")
        yield


def test_a_failed_run_and_its_resume_are_one_record_with_each_step_once(
    plan_tiny: PlanTiny, tmp_path: Path, hushed: None
) -> None:
    both = (BOARD, WANDB, "tracking.wandb.api_key=secret:env:HUSH", "training.checkpoint.every_steps=2")
    with pytest.raises(TrainingError, match="a bad sample"):
        trained(plan_tiny(*both, "task.args.raise_at=4", "training.evaluate.every_steps=3"))
    first = plan_tiny(*both)
    assert [step for step, _ in points(first, "train/loss")] == [1, 2, 3]
    assert [record.exit.exit_code for record in offline(first) if record.HasField("exit")] == [1]

    # From the checkpoint of step 2: step 3 is trained again.
    plan = plan_tiny(*both, "training.evaluate.every_steps=3")
    outcome, warnings = trained(plan, resume=True)
    assert (outcome.step, outcome.notes, warnings) == (6, (), [])
    once = {"train/loss": [1, 2, 3, 4, 5, 6], "eval/error": [3, 6], "model/parameters": [0]}
    for name, steps in once.items():
        assert [step for step, _ in points(plan, name)] == steps
        assert [step for step, _ in history(plan, name)] == steps
    assert dict(points(plan, "eval/error"))[6] == pytest.approx(outcome.metrics["eval/error"])
    assert dict(history(plan, "eval/error"))[6] == outcome.metrics["eval/error"]
    assert [record.exit.exit_code for record in offline(plan) if record.HasField("exit")] == [1, 0]

    # The config, the checkpoints, and how to see them.
    assert "raise_at" in text(plan, "config")[0][1]
    assert [step for step, _ in text(plan, "checkpoint")] == [2, 4, 6]
    assert text(plan, "checkpoint")[-1][1] == outcome.checkpoint
    assert (summary(plan)["checkpoint"], summary(plan)["checkpoint_step"]) == (outcome.checkpoint, 6)
    (run, _) = [record.run for record in offline(plan) if record.HasField("run")][:2]
    assert (run.project, run.run_id, run.display_name) == ("small", "tiny-1", "tiny-1")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["training"]["optimizer"]["lr"] == 0.01
    assert outcome.links["tensorboard"] == f"tensorboard --logdir {tmp_path}/tensorboard/tiny"
    synced = outcome.links["wandb"].removeprefix("wandb sync ").split()
    assert [Path(folder).is_dir() for folder in synced] == [True, True]

    kept = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not [file for file in kept if b"the-very-secret" in file.read_bytes()]
    assert [file for file in kept if b"secret:env:HUSH" in file.read_bytes()]


def test_an_attempt_in_the_same_driver_doubles_nothing(plan_tiny: PlanTiny) -> None:
    plan = plan_tiny(BOARD, WANDB)
    warnings: list[str] = []
    recorders = open_trackers(plan, warnings.append)
    for recorder in recorders:
        for first, last in ((0, 5), (2, 6)):
            recorder.start(first)
            for step in range(first + 1, last + 1):
                recorder(Stepped(step, {"train/loss": step + first / 10}))
        recorder.end("finished")
        recorder.wait()
        assert (recorder.notes, warnings) == ((), [])
    # TensorBoard shows what the run went on with, W&B what it had first.
    again = [(1, 1.0), (2, 2.0), *((step, pytest.approx(step + 0.2)) for step in (3, 4, 5, 6))]
    assert points(plan, "train/loss") == again
    assert history(plan, "train/loss") == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6.2)]


def test_a_stop_is_recorded_as_one_and_not_as_a_failure(plan_tiny: PlanTiny) -> None:
    plan = plan_tiny(WANDB, "task.args.step_s=0.05")

    def stop(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 2:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(PausedError):
        fit(plan, stop, resume=False)
    kinds = [record.WhichOneof("record_type") for record in offline(plan)]
    assert kinds.count("preempting") == 1
    assert [record.exit.exit_code for record in offline(plan) if record.HasField("exit")] == [1]


@pytest.mark.parametrize(("tracker", "name"), [(BOARD, "tensorboard"), (WANDB, "wandb")])
def test_a_missing_library_is_one_error_before_anything_starts(
    plan_tiny: PlanTiny, tracker: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = plan_tiny(tracker)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError) as raised:
        local.train(plan, lambda event: None, resume=False, verbose=False)
    (problem,) = raised.value.problems
    assert (problem.where, problem.remedy) == (f"tracking.{name}", f"pip install 'raystack-ml[{name}]'")
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_fails_is_a_warning_and_a_note_and_the_run_goes_on(
    plan_tiny: PlanTiny, tmp_path: Path
) -> None:
    (tmp_path / "tensorboard").write_text("no folder")
    outcome, warnings = trained(plan_tiny(BOARD))
    assert outcome.step == 6
    (note,), (warning,) = outcome.notes, warnings
    assert note.startswith("TensorBoard has not got everything: ")
    assert warning.startswith("TensorBoard records nothing more: ")
    assert warning.endswith("; the run goes on")
    assert "tensorboard" not in outcome.links


def test_a_tracker_that_hangs_does_not_keep_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raystack.trackers.recorder.LIMIT_S", 0.2)
    never = threading.Event()

    class Hangs:
        links: Mapping[str, str] = MappingProxyType({})

        def start(self, step: int) -> None:
            never.wait()

        def metrics(self, step: int, metrics: Any, at: float) -> None: ...
        def checkpoint(self, step: int, url: str) -> None: ...
        def finish(self, status: Any) -> None: ...

    recorder = Recorder("Slow", Hangs, pytest.fail)
    recorder.start(0)
    recorder.end("finished")
    recorder.wait()
    never.set()
    assert recorder.notes == ("Slow has not got everything: it took longer than 0.2 s",)


def test_offline_files_need_a_local_folder(plan_tiny: PlanTiny) -> None:
    with pytest.raises(PlanError, match="which has to be a local folder"):
        plan_tiny(WANDB, "experiment.storage=s3://bucket/x")
