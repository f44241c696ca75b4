"""What the driver of a run promises: it holds the run, tells every listener, and leaves how it ended."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from raystack.checkpoint import CheckpointStore
from raystack.errors import LaunchError, PausedError, PlanError, Problem, TrainingError
from raystack.events import Event, Finished, RayUp, Saved, Stepped, Warned
from raystack.outcome import Outcome
from raystack.plan import TrainPlan
from raystack.runs import ending, lease
from raystack.training.driver.broadcast import Broadcast
from raystack.training.driver.fit import fit
from raystack.training.driver.run import run

PlanTiny = Callable[..., TrainPlan]


def left(plan: TrainPlan) -> ending.Ending:
    found = ending.read(plan.paths.folder)
    assert found is not None
    return found


def test_a_listener_that_raises_is_a_note_and_stops_nobody(plan_tiny: PlanTiny) -> None:
    plan = plan_tiny()
    seen: list[Event] = []

    def listen(event: Event) -> None:
        seen.append(event)
        if isinstance(event, Stepped):
            raise KeyError("a widget that is gone")

    outcome = fit(plan, listen, resume=False)
    assert outcome.step == 6
    assert isinstance(seen[-1], Finished), "it is told what comes later"
    (note,) = outcome.notes
    assert note == "the listener missed 6 events: it raised KeyError: 'a widget that is gone'"
    assert left(plan).outcome.notes == (note,)


def test_the_other_listeners_get_every_event_and_one_warning() -> None:
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise ValueError("no more room\nfor this")

    tell = Broadcast({"the terminal": broken, "MLflow": heard.append})
    for step in (1, 2):
        tell(Stepped(step, {}))
    warning = Warned("the terminal raised ValueError: no more room at Stepped; the run goes on")
    assert heard == [warning, Stepped(1, {}), Stepped(2, {})]
    assert tell.notes == ("the terminal missed 2 events: it raised ValueError: no more room",)


def test_ctrl_c_in_a_listener_is_no_failure_of_it() -> None:
    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Broadcast({"the terminal": interrupted})(Stepped(1, {}))


def test_the_training_alone_publishes_nothing(plan_tiny: PlanTiny) -> None:
    """For a trial, or a step of a pipeline."""
    plan = plan_tiny("tracking=local", "registry.model=tiny")
    finished = run(plan, lambda event: None)
    assert (finished.step, sorted(finished.metrics)) == (6, ["eval/error", "eval/ratio"])
    assert CheckpointStore(plan.paths.checkpoints).latest_good().manifest is not None
    assert ending.read(plan.paths.folder) is None
    assert not Path(plan.config.experiment.storage, "mlflow.db").exists()


def test_a_result_that_cannot_be_written_down_is_a_note(plan_tiny: PlanTiny) -> None:
    plan = plan_tiny()
    Path(plan.paths.folder, ending.FILE, "in the way").mkdir(parents=True)
    outcome = fit(plan, lambda event: None, resume=False)
    assert (outcome.step, outcome.checkpoint is not None) == (6, True)
    (note,) = outcome.notes
    assert note.startswith(f"how the run ended could not be written to {plan.paths.folder}/outcome.json: ")
    assert not list(Path(plan.paths.folder).glob("outcome.json.*")), "nothing half written is left"


@pytest.mark.slow
def test_a_run_that_fails_while_mlflow_is_away_and_the_disk_full_tells_its_own_error_and_warns_of_the_rest(
    plan_tiny: PlanTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raystack.registry.sender.PATIENCE_S", 0.2)
    (tmp_path / "spool").write_text("no folder: nothing can be kept in it")
    plan = plan_tiny("tracking=local", "tracking.uri=http://127.0.0.1:9", "task.args.raise_at=3")
    warnings: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Warned):
            warnings.append(event.text)

    with pytest.raises(TrainingError, match="rank 0"):
        fit(plan, listen, resume=False)
    assert "the connection is refused" in warnings[-1]
    assert "could not be written" in warnings[-1]
    assert left(plan).status == "failed"


@pytest.mark.slow
def test_the_run_is_held_by_whoever_drives_it(plan_tiny: PlanTiny) -> None:
    plan = plan_tiny()
    holders: list[str | None] = []

    def listen(event: Event) -> None:
        if isinstance(event, Stepped):
            holders.append(lease.holder(plan.paths.folder, print))

    fit(plan, listen, resume=False)
    assert len(holders) == 6
    assert all(holder is not None and holder.startswith("process ") for holder in holders)
    assert lease.holder(plan.paths.folder, print) is None


def test_success_is_left_as_a_file(plan_tiny: PlanTiny) -> None:
    plan = plan_tiny()
    outcome = fit(plan, lambda event: None, resume=False)
    found = left(plan)
    assert (found.status, found.exit_code, found.driver, found.problems) == ("succeeded", 0, 1, ())
    assert found.outcome == outcome
    values = json.loads(Path(plan.paths.folder, ending.FILE).read_text())
    assert values["checkpoint"] == f"{plan.paths.checkpoints}/step-0000000006"


def test_a_failure_is_left_with_its_problems_and_the_last_checkpoint(plan_tiny: PlanTiny) -> None:
    plan = plan_tiny("task.args.raise_at=4", "training.checkpoint.every_steps=2")
    for driver in (1, 2):
        with pytest.raises(TrainingError) as raised:
            fit(plan, lambda event: None, resume=driver > 1)
        found = left(plan)
        assert (found.status, found.exit_code, found.driver) == ("failed", 5, driver)
        assert found.problems == raised.value.problems
        assert found.problems[0].rule == "ValueError: a bad sample"
        assert found.outcome.step == (2 if driver == 1 else 4)
        assert found.outcome.checkpoint == f"{plan.paths.checkpoints}/step-{found.outcome.step:010d}"


def test_a_stop_is_left_as_paused_and_ctrl_c_as_interrupted(plan_tiny: PlanTiny) -> None:
    plan = plan_tiny("task.args.step_s=0.05")

    def stop(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 2:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(PausedError):
        fit(plan, stop, resume=False)
    paused = left(plan)
    assert (paused.status, paused.exit_code) == ("paused", 75)
    assert paused.outcome.step is not None

    def interrupt(event: Event) -> None:
        if isinstance(event, Saved):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(plan, interrupt, resume=True)
    assert (left(plan).status, left(plan).exit_code) == ("interrupted", 130)


def test_a_place_that_refuses_is_left_as_well(plan_tiny: PlanTiny) -> None:
    plan, refusal = plan_tiny(), LaunchError(Problem("ray", rule="it does not start"))

    @contextmanager
    def place() -> Iterator[str | None]:
        raise refusal
        yield None

    with pytest.raises(LaunchError):
        fit(plan, lambda event: None, resume=False, place=place())
    found = left(plan)
    assert (found.exit_code, found.problems, found.outcome) == (4, refusal.problems, Outcome(run_id="tiny-1"))


def test_a_place_is_announced_and_left(plan_tiny: PlanTiny) -> None:
    entered: list[str] = []
    events: list[Event] = []

    @contextmanager
    def place() -> Iterator[str | None]:
        entered.append("in")
        yield "http://127.0.0.1:8265"
        entered.append("out")

    outcome = fit(plan_tiny("target.address=auto"), events.append, resume=False, place=place())
    assert entered == ["in", "out"]
    assert events[0] == RayUp("http://127.0.0.1:8265")
    assert outcome.links == {"dashboard": "http://127.0.0.1:8265"}


def test_a_driver_whose_run_was_taken_leaves_the_file_to_the_other(plan_tiny: PlanTiny) -> None:
    plan = plan_tiny("training.checkpoint.every_steps=1", "task.args.step_s=0.05")

    def listen(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 2:
            with lease.hold(plan.paths.folder, print):
                pass

    with pytest.raises(TrainingError, match="another driver has taken this run"):
        fit(plan, listen, resume=False)
    assert ending.read(plan.paths.folder) is None


def test_what_is_no_ending_is_read_as_none(tmp_path: Path) -> None:
    assert ending.read(str(tmp_path)) is None
    for text in ("", "{}", '{"status": "succeeded"', "[]", '{"problems": 3}'):
        (tmp_path / ending.FILE).write_text(text)
        assert ending.read(str(tmp_path)) is None
    assert ending.read("nobody-knows-this://bucket/run") is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_worker_that_is_to_have_a_gpu_does_not_train_on_the_cpu(plan_tiny: PlanTiny) -> None:
    with pytest.raises(PlanError, match=r"resources\.gpus_per_worker: .* sees none on .*\(got 1\)"):
        fit(plan_tiny("resources.gpus_per_worker=1"), lambda event: None, resume=False)
