"""A study as a person finds it later: in Python, and by `raystack tune ls|show|best`."""

import json
from pathlib import Path

import pytest
import yaml
from synthetic import record, study

import raystack
from raystack import ConfigError, Outcome, Study
from raystack import config as configs
from raystack.checkpoint import CONFIG, fence
from raystack.checkpoint.fence import Holder
from raystack.cli.main import main
from raystack.runs import ending
from raystack.storage import Storage
from raystack.tuning.record import StudyStore
from raystack.tuning.summary import best_trial


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """The folder of a study of 40 trials whose driver has ended."""
    plan = study(tmp_path)
    store = StudyStore(plan.paths.folder)
    store.create(plan)
    store.storage.write(CONFIG, configs.dump(plan.config))
    for trial in record(plan):
        store.write(trial)
    end(plan.paths.folder)
    return plan.paths.folder


def end(folder: str, *, held: bool = False, pid: int = 1, renewed: float = 0.0) -> None:
    """Leave the files of a driver, and if it does not hold the study any more, of its end."""
    driver = Holder(1, "token", "elsewhere", pid, held=held)
    fence.write(Storage(folder), driver, renewed)
    if not held:
        ending.write(folder, ending.succeeded(Outcome(run_id="digits", step=200), driver))


def test_a_study_is_read_from_its_folder(folder: str) -> None:
    found = Study.open(folder)
    assert (found.name, found.folder, found.status) == ("digits", folder, "finished")
    assert sum(found.counts.values()) == 40
    assert found.best == best_trial(found.plan, found.records)
    assert found.outcome.step == 200
    assert "eval/accuracy" in repr(found)
    assert "<th>study</th><td>digits</td>" in found._repr_html_()


def test_its_trials_are_a_table(folder: str) -> None:
    found = Study.open(folder)
    assert found.best is not None
    table = found.trials
    assert [*table.columns[:4]] == ["number", "id", "status", "eval/accuracy"]
    assert [*table.columns[-3:]] == ["steps", "seconds", "reason"]
    assert len(table) == 40
    row = table.set_index("number").loc[found.best.number]
    assert row["training.optimizer.lr"] == found.best.point["training.optimizer.lr"]
    assert table.loc[table.status == "infeasible", "reason"].notna().all()


def test_the_best_config_is_the_one_that_was_tried_and_trains(folder: str, tmp_path: Path) -> None:
    found = Study.open(folder)
    assert found.best is not None
    config = found.best_config
    assert config.tuning is None
    optimizer = config.training.optimizer.model_dump()
    for key in ("kind", "lr"):
        assert optimizer[key] == found.best.point[f"training.optimizer.{key}"]
    text = configs.dump(config)
    assert "tuning" not in yaml.safe_load(text)
    file = tmp_path / "best.yaml"
    file.write_text(text)
    assert raystack.Experiment(file).config == config


def test_a_study_is_found_where_it_was_moved_to(folder: str, tmp_path: Path) -> None:
    moved = tmp_path / "other" / "studies" / "digits"
    moved.parent.mkdir(parents=True)
    Path(folder).rename(moved)
    assert Study.open(str(moved)).folder == str(moved)


@pytest.mark.parametrize(
    ("driver", "status"),
    [
        ({"held": True, "renewed": 1e12}, "running"),
        ({"held": True, "renewed": 0.0}, "lost"),
        ({}, "finished"),
    ],
)
def test_the_status_is_that_of_its_last_driver(driver: dict[str, float], status: str, folder: str) -> None:
    if driver:
        fence.write(Storage(folder), Holder(2, "token", "elsewhere", 1), driver["renewed"])
    assert Study.open(folder).status == status


def test_a_study_that_has_no_best_trial_says_so(tmp_path: Path) -> None:
    plan = study(tmp_path)
    store = StudyStore(plan.paths.folder)
    store.create(plan)
    store.storage.write(CONFIG, configs.dump(plan.config))
    found = Study.open(plan.paths.folder)
    assert (found.best, found.status, found.trials.empty) == (None, "lost", True)
    with pytest.raises(ConfigError, match="digits: no trial has a value of the metric"):
        found.best_config  # noqa: B018 - the access itself fails


def test_all_studies_of_a_storage_are_listed_and_a_damaged_one_is_named(folder: str, tmp_path: Path) -> None:
    other = tmp_path / "studies" / "other"
    other.mkdir()
    (other / "study.json").write_text("{}")
    told: list[str] = []
    assert [each.name for each in raystack.studies(str(tmp_path), told.append)] == ["digits"]
    assert "study.json: the folder of a study has format 1" in told[0]


def test_tune_ls_show_and_best(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = Study.open(folder)
    assert found.best is not None
    assert main(["tune", "ls", "--storage", str(tmp_path), "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["name"], listed["status"], listed["trials"]) == ("digits", "finished", 40)
    assert listed["best"] == found.value_of(found.best)
    assert main(["tune", "ls", "--storage", str(tmp_path)]) == 0
    assert "digits  finished  40" in capsys.readouterr().out

    assert main(["tune", "show", "digits", "--storage", str(tmp_path), "--trials", "3"]) == 0
    shown = capsys.readouterr().out
    assert f"trial {found.best.number}: eval/accuracy" in shown
    table = shown[shown.index("trial  status") :].splitlines()
    assert [line.split()[0] for line in table[:2]] == ["trial", str(found.best.number)]
    assert len(table) == 1 + 3
    assert main(["tune", "show", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["best"] == found.best.number

    assert main(["tune", "best", "digits", "--storage", str(tmp_path)]) == 0
    assert capsys.readouterr().out == configs.dump(found.best_config)
    out = tmp_path / "out.yaml"
    assert main(["tune", "best", folder, "-o", str(out)]) == 0
    assert configs.load(out) == found.best_config


def test_a_study_is_also_found_by_its_config(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(configs.dump(Study.open(folder).plan.config))
    assert main(["tune", "show", str(config)]) == 0
    assert "digits" in capsys.readouterr().out
    assert main(["tune", "show", str(config), "tuning.name=other"]) == ConfigError.exit_code
    assert "there is no such study; `raystack tune ls` lists them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["show", "digit"], "error: study: there is no such study in"),
        (["show", "digit"], "(got digit); did you mean digits?"),
        (["best", "digits", "--trial", "99"], "digits: there is no such trial (got 99); they are numbered"),
        (["show", "digits", "x=1"], "error: x=1: only a config has overrides; drop it"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], says: str, folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", *words, "--storage", str(tmp_path)]) == ConfigError.exit_code
    assert says in capsys.readouterr().err
