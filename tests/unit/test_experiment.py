"""The Python API in one process: what is planned and trained, and what the same mistakes look like."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import raystack
from raystack import ConfigError, Experiment, LaunchError, PlanError
from raystack.checkpoint import CheckpointStore
from raystack.events import Event, Finished, Stepped, Warned

TINY = Path(__file__).parents[1] / "tiny"
CONFIG = TINY / "config.yaml"


def test_every_name_is_there_and_nothing_is_imported_before_it_is_used() -> None:
    assert set(raystack.__all__) <= set(dir(raystack))
    assert all(getattr(raystack, name).__name__ == name for name in raystack.__all__)
    with pytest.raises(AttributeError, match="module 'raystack' has no attribute 'Experimnt'"):
        raystack.Experimnt  # noqa: B018 - the access itself fails
    probe = "import sys, raystack; print({'torch', 'ray', 'mlflow', 'hydra'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n"


def test_a_plan_looks_like_the_dry_run(capfd: pytest.CaptureFixture[str]) -> None:
    view = Experiment(CONFIG, "training.epochs=3").plan()
    command = [sys.executable, "-m", "raystack", "train", str(CONFIG), "training.epochs=3", "--dry-run"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    assert _without_run(repr(view)) == _without_run(shown)
    assert "<th>length</th><td>3 epochs" in view._repr_html_()


def _without_run(text: str) -> list[str]:
    """Lines without those that name the run, whose id is a new one each time."""
    return [line.rstrip() for line in text.splitlines() if not line.startswith(("run ", "folder "))]


def test_a_mapping_and_a_file_mean_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TINY)
    from_file = Experiment("config.yaml", "training.epochs=3")
    from_mapping = Experiment(yaml.safe_load(CONFIG.read_text()), "training.epochs=3")
    assert from_mapping.config == from_file.config
    assert Experiment(from_file.config).config == from_file.config
    assert Experiment(from_file.config, "experiment.seed=5").config.experiment.seed == 5
    changed = from_file.override("experiment.seed=5")
    assert (changed.config.experiment.seed, changed.config.training.epochs) == (5, 3)
    assert from_file.config.experiment.seed != 5


def test_a_mistake_in_a_mapping_is_named_by_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TINY)
    values: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    values["training"]["epocs"] = 3
    with pytest.raises(
        ConfigError, match=r"training\.epocs: unknown key \(got 3\); did you mean 'epochs'"
    ) as raised:
        Experiment(values)
    assert "/tmp" not in str(raised.value)


def test_training_tells_its_events_and_ends_with_an_outcome(tmp_path: Path) -> None:
    events: list[Event] = []
    outcome = Experiment(CONFIG, f"experiment.storage={tmp_path}").train(on_event=events.append)
    assert outcome.step == 6
    assert outcome.checkpoint is not None
    assert [type(event) for event in events if isinstance(event, (Stepped, Finished))][-1] is Finished
    assert Path(outcome.checkpoint).is_dir()


def test_ctrl_c_leaves_a_clean_state_and_the_run_goes_on(tmp_path: Path) -> None:
    experiment = Experiment(CONFIG, f"experiment.storage={tmp_path}", "training.checkpoint={every_steps: 1}")

    def interrupt(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            experiment.train(on_event=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    (run,) = (tmp_path / "runs").iterdir()
    assert CheckpointStore(str(run / "checkpoints")).manifests()
    events: list[Event] = []
    outcome = experiment.train(on_event=events.append, resume=True)
    assert (outcome.run_id, outcome.step) == (run.name, 6)
    assert not [event for event in events if isinstance(event, Warned)]


@pytest.mark.parametrize(
    ("target", "call", "says"),
    [
        (
            "job",
            "train",
            "target: train() stays until the run has ended, on this machine (got job); use submit()",
        ),
        ("job", "serve", "target: serve() serves for the time of a block, from this machine"),
        (
            "local",
            "submit",
            "target: submit() sends the run elsewhere, and this one runs where it is started",
        ),
    ],
)
def test_a_method_that_does_not_fit_the_target_is_refused(target: str, call: str, says: str) -> None:
    experiment = Experiment(CONFIG, f"target={target}", "serving.model=x")
    start = experiment.serve().__enter__ if call == "serve" else getattr(experiment, call)
    with pytest.raises(ConfigError) as raised:
        start()
    assert says in str(raised.value)


def test_a_run_that_is_not_there_is_named_by_its_option(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"^--run: there is no such run of 'tiny'"):
        Experiment(CONFIG, f"experiment.storage={tmp_path}").train(run="tiny-none")


SEARCHED = ("tuning.metric=eval/error", "training.optimizer.lr=interval(1e-4,1e-1)")


def test_a_search_is_planned_and_its_sweeps_have_to_be_asked_for() -> None:
    view = Experiment(CONFIG, *SEARCHED, sweeps="searched").plan_tuning()
    assert ("space", "training.optimizer.lr: 0.0001 to 0.1") in view.rows
    assert ("objective", "eval/error (max)") in view.rows
    assert json.loads(view.json)["trials"] == 10
    with pytest.raises(ConfigError, match="gives several values where one is expected"):
        Experiment(CONFIG, *SEARCHED)
    grid = Experiment(CONFIG, SEARCHED[0], sweeps="grid").override("training.optimizer.lr=0.1,0.2")
    assert json.loads(grid.plan_tuning().json)["trials"] == 2


def test_the_search_of_a_mapping_a_file_and_a_config_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TINY)
    from_file = Experiment("config.yaml", *SEARCHED, sweeps="searched")
    values: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    values["tuning"] = {
        "metric": "eval/error",
        "space": {"training.optimizer.lr": {"uniform": [1e-4, 1e-1]}},
    }
    assert Experiment(values).config == from_file.config
    assert Experiment(from_file.config).plan_tuning().rows == from_file.plan_tuning().rows


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("training.epochs=1,2",), "tuning.metric: a study needs one; name a metric of the evaluation"),
        (("tuning.metric=eval/x",), "tuning.space: a study needs one; name paths with domains"),
        (
            ("tuning.metric=eval/x", "length=choice(8,16)"),
            (
                "override 'length=choice(8,16)': there is no such path in the config (got length); did you"
                " mean task.args.length?"
            ),
        ),
        (
            ("tuning.metric=eval/x", "trainng.epochs=1,2"),
            (
                "override 'trainng.epochs=1,2': there is no such path in the config (got trainng.epochs); did"
                " you mean training.epochs?"
            ),
        ),
    ],
)
def test_an_impossible_search_is_one_line(overrides: tuple[str, ...], says: str) -> None:
    with pytest.raises(PlanError) as caught:
        Experiment(CONFIG, *overrides, sweeps="searched").plan_tuning()
    assert str(caught.value.problems[0]) == says


def test_where_a_search_runs_decides_on_the_method(tmp_path: Path) -> None:
    here = Experiment(CONFIG, *SEARCHED, f"experiment.storage={tmp_path}", sweeps="searched")
    with pytest.raises(ConfigError, match=r"target: submit_tuning\(\) sends the run elsewhere.*use tune\(\)"):
        here.submit_tuning()
    elsewhere = here.override("target=job", "target.address=http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"target: tune\(\) stays until.*use submit_tuning\(\)"):
        elsewhere.tune()
    with pytest.raises(ConfigError, match="there is no such study"):
        here.tune(resume=True)
    with pytest.raises(ConfigError, match="there is no such study"):
        here.study  # noqa: B018 - the access itself fails
