"""What a config file may be and where it may lie; what is promised of the value that comes out."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobRuntime
from hydra.version import getbase
from pydantic import ValidationError

from raystack.config import load
from raystack.config.choices import GROUPS
from raystack.config.optimizer import SGD
from raystack.config.target import Job, Local
from raystack.errors import ConfigError
from raystack.plan import plan_serving, plan_training
from raystack.plan.describe import as_json, rows

ROOT = Path(__file__).parents[3]
GOOD = """\
experiment: {name: demo}
task: {entry: "task:Demo"}
training:
  steps: 10
  batch: {global: 16}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A minimal config file."""
    file = tmp_path / "config.yaml"
    file.write_text(GOOD)
    return file


@pytest.mark.parametrize(
    "file", sorted(GROUPS.glob("*/*.yaml")), ids=lambda file: f"{file.parent.name}={file.stem}"
)
def test_every_shipped_choice_loads_and_plans(
    file: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "RAYSTACK_IMAGE": "demo:1",
        "RAYSTACK_QUEUE": "team",
    }.items():
        monkeypatch.setenv(name, value)
    # Some groups say more about a target that another one chooses.
    chosen = [
        *(["target: kuberay"] if file.parent.name in ("queue", "spot", "gpu", "machine") else []),
        *(["resources: gpu1"] if file.parent.name == "machine" else []),
        f"{file.parent.name}: {file.stem!r}",
    ]
    model = "serving.model=models:/demo/1" if file.stem != "off" else "serving.model=/x"
    by_override = load(config, [*(choice.replace(": ", "=").replace("'", "") for choice in chosen), model])
    config.write_text(f"defaults: [{', '.join(chosen)}, _self_]\n{GOOD}")
    assert load(config, [model]) == by_override
    for plan in (plan_training(by_override, "demo-1"), plan_serving(by_override)):
        assert rows(plan)
        assert as_json(plan)


@pytest.mark.parametrize(
    "file", sorted(ROOT.glob("examples/*/config.yaml")), ids=lambda file: file.parent.name
)
def test_every_example_loads_and_plans(file: Path) -> None:
    config = load(file)
    own = config.task.entry.startswith("task:")
    assert (config.task.folder is not None and (Path(config.task.folder) / "task.py").is_file()) == own
    assert plan_training(config, "example-1").batch.global_ > 0


def test_no_shipped_group_is_forgotten() -> None:
    assert {path.name for path in GROUPS.iterdir()} == {
        path.parent.name for path in GROUPS.glob("*/*.yaml")
    } | {"base.yaml"}


def test_ones_own_groups_win_wherever_the_file_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a folder with 'quotes' = $ and ünïcode"
    (folder / "resources").mkdir(parents=True)
    (folder / "resources" / "cpu2.yaml").write_text("workers: 3\n")
    (folder / "resources" / "mine.yaml").write_text("defaults: [cpu1]\nplacement: SPREAD\n")
    (folder / "my config.v1.yaml").write_text(f"defaults: [resources: cpu2, strategy: ddp, _self_]\n{GOOD}")
    monkeypatch.chdir("/")
    assert load(folder / "my config.v1.yaml").resources.workers == 3
    mine = load(folder / "my config.v1.yaml", ["resources=mine"]).resources
    assert (mine.workers, mine.placement) == (1, "SPREAD")
    assert load(folder / "my config.v1.yaml", ["resources=cpu1"]).resources.workers == 1


def test_the_file_wins_over_its_groups_with_and_without_self(config: Path) -> None:
    for defaults in ("[resources: cpu2]", "[resources: cpu2, _self_]"):
        config.write_text(f"defaults: {defaults}\n{GOOD}resources: {{workers: 4}}\n")
        assert load(config).resources.workers == 4


def test_the_task_beside_the_config_is_found(config: Path) -> None:
    assert load(config).task.folder is None
    (config.parent / "task.py").touch()
    assert load(config).task.folder == str(config.parent)
    (config.parent / "code").mkdir()
    assert load(config, ["task.folder=code"]).task.folder == str(config.parent / "code")


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("training.clip_norm=1", "training.clip_norm", 1.0),
        ("+training.clip_norm=0.5", "training.clip_norm", 0.5),
        ("++training.steps=7", "training.steps", 7),
        ("training.batch={micro: 4}", "training.batch.micro", 4),
        ("training.batch={micro: 4}", "training.batch.global_", 16),
        ("experiment.tags={team: blue}", "experiment.tags", {"team": "blue"}),
        ("experiment.tags.team='blue, or green: both'", "experiment.tags", {"team": "blue, or green: both"}),
        ("training.optimizer={kind: adamw, betas: [0.8, 0.9]}", "training.optimizer.betas", (0.8, 0.9)),
        ("training.optimizer={kind: sgd}", "training.optimizer", SGD(kind="sgd")),
        ("serving.name=${experiment.name}", "serving.name", "demo"),
        ("task.args.list=[1, two, {three: 3}]", "task.args", {"list": [1, "two", {"three": 3}]}),
        ("training.batch={global: null, micro: 2}", "training.batch.global_", None),
        ("resources=gpu8", "resources.gpus_per_worker", 1),
        ("+resources=gpu8", "resources.gpus_per_worker", 1),
        ("tracking.kind=off", "tracking.kind", "off"),
        ("~experiment.storage", "experiment.storage", os.path.expanduser("~/raystack")),
    ],
)
def test_overrides(override: str, key: str, value: object, config: Path) -> None:
    found: object = load(config, [override])
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value


def test_a_deleted_key_takes_its_default(config: Path) -> None:
    config.write_text(GOOD + "serving: {port: 9000, name: mine}\n")
    assert load(config, ["~serving.port"]).serving.port == 8000
    assert load(config, ["~serving"]).serving.name is None
    assert load(config, ["~serving.port=9000"]).serving.port == 8000


def test_later_overrides_win(config: Path) -> None:
    loaded = load(
        config,
        ["resources=cpu1", "training.steps=1", "resources=cpu2", "training.steps=2", "resources.workers=5"],
    )
    assert (loaded.resources.workers, loaded.training.steps) == (5, 2)


def test_a_config_is_frozen(config: Path) -> None:
    loaded = load(config)
    with pytest.raises(ValidationError, match="frozen"):
        loaded.training.steps = 3
    with pytest.raises(ValidationError, match="frozen"):
        loaded.serving = loaded.serving


def test_the_environment_is_read_in_base_and_where_the_file_says_so(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSTACK_STORAGE", "s3://bucket/runs/")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("PORT", "8123")
    config.write_text(GOOD + "serving: {port: '${oc.decode:${oc.env:PORT}}'}\n")
    loaded = load(config)
    assert (loaded.experiment.storage, loaded.serving.port) == ("s3://bucket/runs", 8123)
    assert loaded.target == Local(address="10.0.0.1:6379")
    assert load(config, [f"experiment.storage={tmp_path}", "target.address=null"]).experiment.storage == str(
        tmp_path
    )
    monkeypatch.delenv("RAYSTACK_STORAGE")
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert (load(config).experiment.storage, load(config).target) == (
        os.path.expanduser("~/raystack"),
        Local(),
    )
    assert isinstance(load(config, ["target=job"]).target, Job)  # RAY_ADDRESS is about a Ray that is joined


@pytest.mark.parametrize(
    ("given", "means"),
    [
        ("file:///data/runs/", "/data/runs"),
        ("S3://bucket/x/", "s3://bucket/x"),
        ("/a/../b/", "/b"),
        ("gs://bucket", "gs://bucket"),
    ],
)
def test_storage_has_one_spelling(given: str, means: str, config: Path) -> None:
    assert load(config, [f"experiment.storage='{given}'"]).experiment.storage == means


def test_hydra_is_left_as_it_was(config: Path, tmp_path: Path) -> None:
    load(config)
    load(config)
    assert not GlobalHydra.instance().is_initialized()
    (tmp_path / "app.yaml").write_text("x: 1\n")
    with initialize_config_dir(config_dir=str(tmp_path), version_base="1.2", job_name="their_app"):
        instance, hydra, version = GlobalHydra.instance(), GlobalHydra.instance().hydra, getbase()
        assert load(config).experiment.name == "demo"
        with pytest.raises(ConfigError):
            load(config, ["training.stepz=1"])
        assert (GlobalHydra.instance(), GlobalHydra.instance().hydra, getbase()) == (instance, hydra, version)
        assert JobRuntime.instance().get("name") == "their_app"
        assert compose("app").x == 1


def test_loading_in_threads(config: Path) -> None:
    names: list[str] = []
    threads = [
        threading.Thread(
            target=lambda n=n: names.append(load(config, [f"experiment.name=t{n}"]).experiment.name)
        )
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == [f"t{n}" for n in range(6)]


def test_nothing_heavy_is_imported_to_load_plan_and_describe(config: Path) -> None:
    code = f"""
import sys
from raystack.config import dump, load
from raystack.config.document import json_schema, markdown
from raystack.plan import plan_serving, plan_training
from raystack.plan.describe import as_json, rows
config = load({str(config)!r}, ["serving.model=models:/demo/1"])
for plan in (plan_training(config, "demo-1"), plan_serving(config)):
    rows(plan), as_json(plan)
dump(config), json_schema(), markdown()
print(sorted({{"ray", "torch", "mlflow", "numpy", "pandas", "kubernetes", "deepspeed"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "[]\n"
    assert done.stderr == ""
