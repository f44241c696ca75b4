"""The trials of a study beside MLflow: a run each, grouped by the study's name."""

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from raystack.config import load
from raystack.plan import plan_tuning
from raystack.plan.tuning import trial_config
from raystack.trackers.offline import folders, records
from raystack.tuning.record import Report, Status, Trial
from raystack.tuning.trackers import Beside
from raystack.tuning.tracking import NoStudyTracker

CONFIG = """
experiment: {{name: digits, storage: {storage}}}
task: {{entry: "tiny:Tiny"}}
training: {{epochs: 1, batch: {{global: 4}}, evaluate: {{every_steps: 5}}}}
tracking: {{kind: "off", tensorboard: {{}}, wandb: {{mode: offline}}}}
tuning:
  name: rates
  metric: eval/accuracy
  space:
    training.optimizer.lr: {{loguniform: [0.0001, 0.1]}}
"""


@pytest.mark.slow
@pytest.mark.usefixtures("wandb_ended")
def test_each_trial_is_a_run_in_the_studys_group(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.format(storage=tmp_path))
    plan = plan_tuning(load(file, []), "digits-1")
    warnings: list[str] = []
    tracker = Beside(plan, NoStudyTracker(), warnings.append)
    trials = [
        Trial(number=number, id=f"rates-{number:04d}", point={"training.optimizer.lr": 0.01 * (number + 1)})
        for number in range(2)
    ]
    ends: list[Status] = ["finished", "failed"]
    for trial in trials:
        tracker.trial_started(trial, trial_config(plan, trial.point))
    for trial, end in zip(trials, ends, strict=True):
        report = Report(number=1, step=5, seconds=0.1, metrics={"eval/accuracy": 0.5}, order=trial.number)
        tracker.trial_report(trial, report)
        trial.status = end
        tracker.trial_ended(trial)
    tracker.finish("FINISHED", None, {})

    assert (tracker.notes, warnings) == ((), [])
    for trial, code in zip(trials, (0, 1), strict=True):
        board = EventAccumulator(f"{tmp_path}/tensorboard/digits/{trial.id}").Reload()
        assert [(each.step, each.value) for each in board.Scalars("eval/accuracy")] == [(5, 0.5)]
        (folder,) = folders(tmp_path / "wandb", trial.id)
        kept = list(records(folder / f"run-{trial.id}.wandb"))
        (run,) = [record.run for record in kept if record.HasField("run")]
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert (run.run_group, run.project) == ("rates", "digits")
        assert config["training"]["optimizer"]["lr"] == trial.point["training.optimizer.lr"]
        assert [record.exit.exit_code for record in kept if record.HasField("exit")] == [code]
    assert tracker.links == {
        "tensorboard": f"tensorboard --logdir {tmp_path}/tensorboard/digits",
        "wandb": f"wandb sync {tmp_path}/wandb/offline-run-*-rates-*",
    }
