"""MLflow for real: an SQLite store, and a server that is killed and started again."""

import math
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from raystack.checkpoint.model import ModelSpec, write_spec
from raystack.checkpoint.weights import write_weights
from raystack.config import load
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, ServingError
from raystack.plan import TrainPlan, plan_training
from raystack.registry import MlflowTracker, NoTracker, open_tracker, pin, resolve
from raystack.registry.resolve import newest_version
from raystack.task import Signature, TensorSpec

pytestmark = pytest.mark.slow
CONFIG = """
experiment: {{name: digits, storage: {storage}, tags: {{team: blue}}}}
task: {{entry: "tiny:Tiny", args: {{width: 4}}}}
training: {{epochs: 1, batch: {{global: 4}}}}
tracking: {{flush_s: 0.05, system_metrics: false}}
registry: {{model: digits, alias: champion}}
"""

MakePlan = Callable[..., TrainPlan]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    folder = tmp_path_factory.mktemp("storage")
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="module")
def make_plan(place: Path) -> MakePlan:
    """(run id, overrides) -> a plan whose storage is the module's."""
    file = place / "config.yaml"
    file.write_text(CONFIG.format(storage=place))
    return lambda run_id, *overrides: plan_training(load(file, overrides), run_id)


@contextmanager
def tracked(plan: TrainPlan) -> Iterator[MlflowTracker]:
    """A run that is recorded and finishes."""
    tracker = MlflowTracker(plan)
    tracker.start()
    yield tracker
    tracker.finish("FINISHED")


class Server:
    """An `mlflow server` process that can be killed and started again on the same port and store."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        store = [
            "--backend-store-uri",
            f"sqlite:///{self._folder}/mlflow.db",
            "--artifacts-destination",
            f"{self._folder}/artifacts",
        ]
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            *store,
            "--port",
            str(self.port),
            "--workers",
            "1",
        ]
        environment = {
            **os.environ,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        with open(self._folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline, (self._folder / "server.log").read_text()
            time.sleep(0.1)

    def kill(self) -> None:
        """End it and its workers at once, as a node that fails does."""
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    """Not started yet."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_store, folder / "mlflow.db")
    server = Server(folder)
    yield server
    server.kill()


def until(done: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def recorded(folder: Path, run_id: str) -> Run:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (run,) = client.search_runs(["1"], f"tags.`raystack.run_id` = '{run_id}'")
    return run


def history(folder: Path, run: Run, key: str) -> list[tuple[int, float]]:
    points = MlflowClient(f"sqlite:///{folder}/mlflow.db").get_metric_history(run.info.run_id, key)
    return sorted((point.step, point.value) for point in points)


def test_a_run_is_recorded_with_its_config_metrics_and_end(make_plan: MakePlan, place: Path) -> None:
    with tracked(make_plan("digits-a")) as tracker:
        for step in range(5):
            tracker.log_metrics(step, {"train/loss": 1.0 / (step + 1)})
    run = recorded(place, "digits-a")
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "digits-a"
    assert run.info.run_id == tracker.mlflow_run_id
    assert run.data.tags["team"] == "blue"
    assert run.data.params["training.batch.global"] == "4"
    assert run.data.params["task.args.width"] == "4"
    assert history(place, run, "train/loss") == [(step, 1.0 / (step + 1)) for step in range(5)]
    config = place / "mlflow" / run.info.run_id / "artifacts/config.yaml"
    assert load(config).experiment.tags == {"team": "blue"}
    assert tracker.notes == ()
    assert str(place / "mlflow.db") in tracker.links["mlflow"]


def test_a_failed_run_is_failed(make_plan: MakePlan, place: Path) -> None:
    tracker = open_tracker(make_plan("digits-failed"))
    tracker.start()
    tracker.finish("FAILED")
    assert recorded(place, "digits-failed").info.status == "FAILED"


def test_a_resumed_run_goes_on_in_the_same_mlflow_run(make_plan: MakePlan, place: Path) -> None:
    plan = make_plan("digits-resumed")
    first = open_tracker(plan)
    first.start()
    first.log_metrics(1, {"train/loss": 2.0})
    first.finish("KILLED")
    with tracked(make_plan("digits-resumed", "training.epochs=3")) as second:
        second.log_metrics(2, {"train/loss": 1.0})
        until(lambda: second.mlflow_run_id is not None)
        assert recorded(place, "digits-resumed").info.status == "RUNNING"
    run = recorded(place, "digits-resumed")
    assert (run.info.status, run.info.run_id) == ("FINISHED", first.mlflow_run_id)
    assert history(place, run, "train/loss") == [(1, 2.0), (2, 1.0)]
    assert (run.data.params["training.epochs"], run.data.tags["now.training.epochs"]) == ("1", "3")
    assert second.notes == ()


def test_logging_never_waits_for_mlflow(make_plan: MakePlan) -> None:
    tracker = MlflowTracker(make_plan("digits-fast"))
    started = time.perf_counter()
    tracker.start()
    for step in range(100):
        tracker.log_metrics(step, {"train/loss": 1.0})
    assert time.perf_counter() - started < 0.5
    tracker.finish("FINISHED")


def test_more_points_than_one_request_takes_all_arrive(make_plan: MakePlan, place: Path) -> None:
    with tracked(make_plan("digits-many")) as tracker:
        for step in range(2500):
            tracker.log_metrics(step, {"train/loss": float(step)})
        tracker.log_metrics(0, {f"eval/class_{index}": 1.0 for index in range(1200)})
    run = recorded(place, "digits-many")
    assert len(history(place, run, "train/loss")) == 2500
    assert sum(key.startswith("eval/class_") for key in run.data.metrics) == 1200


def test_values_that_are_no_numbers_arrive(make_plan: MakePlan, place: Path) -> None:
    with tracked(make_plan("digits-nan")) as tracker:
        tracker.log_metrics(1, {"nan": math.nan, "inf": math.inf, "train/loss": 1.0})
    metrics = recorded(place, "digits-nan").data.metrics
    assert math.isnan(metrics["nan"])
    assert metrics["inf"] > 1e308
    assert metrics["train/loss"] == 1.0
    assert tracker.notes == ()


def test_what_mlflow_refuses_is_noted_once_and_the_rest_arrives(make_plan: MakePlan, place: Path) -> None:
    with tracked(make_plan("digits-refused")) as tracker:
        for step in range(50):
            tracker.log_metrics(step, {"top5%": 0.5, "train/loss": 1.0})
        tracker.log_params({"training.epochs": "99", "more": "x" * 7000})
    run = recorded(place, "digits-refused")
    assert len(history(place, run, "train/loss")) == 50
    assert run.data.params["training.epochs"] == "1"
    assert len(run.data.params["more"]) == 6000
    assert run.data.tags["now.training.epochs"] == "99"
    assert [note.split(":")[0] for note in tracker.notes] == [
        "MLflow refused the metric 'top5%', which is not recorded"
    ]


def test_an_artifact_store_that_fails_does_not_hold_up_the_rest(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raystack.registry.sender.FIRST_RETRY_S", 0.01)
    (tmp_path / "file").write_text("not a folder")
    plan = replace(make_plan("digits-blocked"), experiment="blocked", artifacts=f"{tmp_path}/file/artifacts")
    with tracked(plan) as tracker:
        tracker.log_metrics(1, {"train/loss": 1.0})
    run = MlflowClient(plan.tracking_uri).get_run(str(tracker.mlflow_run_id))
    assert (run.info.status, run.data.metrics["train/loss"]) == ("FINISHED", 1.0)
    assert any("artifact store" in note for note in tracker.notes)


def test_use_of_the_machine_is_recorded_under_mlflows_names(make_plan: MakePlan, place: Path) -> None:
    with tracked(make_plan("digits-system", "tracking.system_metrics=true")):
        time.sleep(1.5)
    metrics = recorded(place, "digits-system").data.metrics
    assert 0 <= metrics["system/cpu_utilization_percentage"] <= 100
    assert metrics["system/system_memory_usage_megabytes"] > 0
    assert "system/network_receive_megabytes" in metrics


def test_a_missing_secret_is_told_before_anything_starts(make_plan: MakePlan) -> None:
    plan = make_plan("digits-secret", "tracking.token='secret:env:NO_SUCH_TOKEN'")
    with pytest.raises(ConfigError, match="NO_SUCH_TOKEN"):
        open_tracker(plan)


def test_with_tracking_off_there_is_nothing_to_do(make_plan: MakePlan, tmp_path: Path) -> None:
    tracker = open_tracker(make_plan("digits-off", "~registry", "tracking.kind=off"))
    assert isinstance(tracker, NoTracker)
    tracker.start()
    tracker.log_metrics(1, {"train/loss": 1.0})
    tracker.finish("FINISHED")
    assert (tracker.mlflow_run_id, tracker.notes, dict(tracker.links)) == (None, (), {})


RUN = """
import sys
from raystack.config import load
from raystack.plan import plan_training
from raystack.registry import open_tracker
assert "mlflow" not in sys.modules
tracker = open_tracker(plan_training(load(sys.argv[1]), sys.argv[2]))
tracker.start()
tracker.log_metrics(1, {"train/loss": 1.0})
tracker.finish("FINISHED")
assert not tracker.notes, tracker.notes
"""


def test_two_runs_may_make_the_store_together_and_print_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.format(storage=tmp_path / "new"))
    command = [sys.executable, "-c", RUN, str(tmp_path / "config.yaml")]
    both = [
        subprocess.Popen([*command, run], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for run in ("digits-1", "digits-2")
    ]
    assert [(process.communicate(timeout=90)[0], process.returncode) for process in both] == [
        ("", 0),
        ("", 0),
    ]
    for run in ("digits-1", "digits-2"):
        assert recorded(tmp_path / "new", run).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://127.0.0.1:9", "the connection is refused"),
        ("http://mlflow.nope.invalid:5000", "the name of its host cannot be resolved"),
        ("sqlite:///{folder}/text.db", "it is no SQLite database"),
    ],
)
def test_a_tracker_that_is_away_says_why_within_seconds_and_at_the_end(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, reason: str
) -> None:
    (tmp_path / "text.db").write_text("this is no database\n" * 10)
    monkeypatch.setattr("raystack.registry.sender.AWAY_S", 0.2)
    monkeypatch.setattr("raystack.registry.sender.PATIENCE_S", 0.2)
    plan = make_plan(
        "digits-away", f"tracking.uri={uri.format(folder=tmp_path)}", f"experiment.storage={tmp_path}"
    )
    warnings: list[str] = []
    tracker = open_tracker(plan, warnings.append)
    tracker.start()
    tracker.log_metrics(1, {"train/loss": 1.0})
    until(lambda: bool(warnings))
    tracker.finish("FINISHED")
    (warning,), (note,) = warnings, tracker.notes
    assert reason in warning
    assert "the run goes on" in warning
    assert reason in note
    assert re.search(r"[5-7] commands wait in", note)  # the params fill one request or two


def test_a_spool_that_cannot_be_written_is_told(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raystack.registry.sender.PATIENCE_S", 0.2)
    (tmp_path / "file").write_text("not a folder")
    plan = make_plan("digits-nowhere", f"experiment.storage={tmp_path}/file")
    with tracked(plan_training(plan.config, "digits-nowhere")) as tracker:
        tracker.log_metrics(1, {"train/loss": 1.0})
    (note,) = tracker.notes
    assert "could not be written" in note
    assert str(tmp_path / "file") in note


TASK = """
from dataclasses import dataclass
import torch
from raystack.task import Signature, TensorSpec

@dataclass
class Tiny:
    width: int

    @property
    def signature(self):
        x, y = TensorSpec("x", "float32", (-1, self.width)), TensorSpec("y", "float32", (-1, 2))
        return Signature((x,), (y,))

    def model(self):
        return torch.nn.Linear(self.width, 2)

    def train_data(self):
        return []

    def eval_data(self):
        return None

    def loss(self, model, batch):
        return model(batch).sum()

    def metrics(self, model, batch):
        return {}

    def predict(self, model, inputs):
        return {"y": model(inputs["x"])}
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint's folder with its `model/`."""
    import torch

    folder = tmp_path_factory.mktemp("checkpoints") / "step-0000000005"
    (folder / "model").mkdir(parents=True)
    (folder / "config.yaml").write_text("experiment: {name: digits}\n")
    write_spec(folder / "model", card("digits-a", 5), None)
    write_weights(folder / "model", torch.nn.Linear(4, 2).state_dict())
    return folder


def card(run_id: str, step: int) -> ModelSpec:
    signature = Signature((TensorSpec("x", "float32", (-1, 4)),), (TensorSpec("y", "float32", (-1, 2)),))
    return ModelSpec("tiny:Tiny", {"width": 4}, signature, run_id, step, {"eval/accuracy": 0.9})


@pytest.fixture(scope="module")
def registered(make_plan: MakePlan, place: Path, checkpoint: Path) -> MlflowTracker:
    """Version 1 of `digits` with the alias `champion`, from the run `digits-registered`."""
    with tracked(make_plan("digits-registered")) as tracker:
        tracker.log_metrics(5, {"eval/accuracy": 0.9})
        result = tracker.register(checkpoint / "model", card("digits-registered", 5))
        again = tracker.register(checkpoint / "model", card("digits-registered", 5))
    assert result is not None
    assert (result.version, result.alias) == ("models:/digits/1", "models:/digits@champion")
    assert again == result
    assert tracker.notes == ()
    return tracker


def test_a_version_carries_signature_metrics_config_and_source_run(
    registered: MlflowTracker, place: Path
) -> None:
    from mlflow.models import Model

    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    (version,) = client.search_model_versions("name = 'digits'")
    assert version.run_id == registered.mlflow_run_id
    assert version.tags == {"raystack.run_id": "digits-registered", "raystack.step": "5"}
    (model,) = client.search_logged_models(["1"], f"source_run_id = '{registered.mlflow_run_id}'")
    assert model.status == "READY"
    assert [(metric.key, metric.value, metric.step) for metric in model.metrics or []] == [
        ("eval/accuracy", 0.9, 5)
    ]
    signature = Model.load(model.artifact_location).signature
    assert [(spec.name, spec.type.name, spec.shape) for spec in signature.inputs.inputs] == [
        ("x", "float32", (-1, 4))
    ]
    assert [(spec.name, spec.type.name, spec.shape) for spec in signature.outputs.inputs] == [
        ("y", "float32", (-1, 2))
    ]
    assert (Path(model.artifact_location) / "config.yaml").is_file()
    assert history(place, recorded(place, "digits-registered"), "eval/accuracy") == [(5, 0.9)]


def test_a_resumed_run_that_registers_again_gets_the_same_version(
    registered: MlflowTracker, make_plan: MakePlan, checkpoint: Path
) -> None:
    with tracked(make_plan("digits-registered")) as tracker:
        again = tracker.register(checkpoint / "model", card("digits-registered", 5))
    assert again is not None
    assert again.version == "models:/digits/1"


@pytest.mark.usefixtures("registered")
def test_an_alias_and_a_version_lead_to_the_files(place: Path, checkpoint: Path) -> None:
    uri = f"sqlite:///{place}/mlflow.db"
    folder = resolve("models:/digits@champion", Tracking(uri=uri))
    assert folder == resolve("models:/digits/1", Tracking(uri=uri))
    assert pin("models:/digits@champion", Tracking(uri=uri)) == "models:/digits/1"
    assert (folder / "model.json").read_text() == (checkpoint / "model/model.json").read_text()
    assert folder.is_relative_to(place / "mlflow"), "a local store is used where it is"


def test_a_checkpoint_and_a_model_folder_lead_to_the_files(checkpoint: Path) -> None:
    for place in (checkpoint, checkpoint / "model"):
        for uri in (str(place), f"file://{place}"):
            assert resolve(uri, Tracking(kind="off")) == checkpoint / "model"


def test_the_url_of_a_checkpoint_leads_to_a_copy_of_the_files(checkpoint: Path) -> None:
    remote = fsspec.filesystem("memory")
    remote.put(str(checkpoint), "/bucket/step-0000000005", recursive=True)
    folder = resolve("memory://bucket/step-0000000005", Tracking(kind="off"))
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]
    assert resolve("memory://bucket/step-0000000005/model", Tracking(kind="off")).name
    with pytest.raises(ConfigError, match=r"no model\.json"):
        resolve("memory://bucket/step-0000000006", Tracking(kind="off"))


def test_an_object_store_that_is_away_for_a_moment_is_asked_again(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = fsspec.filesystem("memory")
    remote.put(str(checkpoint), "/away/step-0000000005", recursive=True)
    answer, away = remote.ls, [ConnectionError("no route to host")]

    def ls(path: str, **options: object) -> object:
        if away:
            raise away.pop()
        return answer(path, **options)

    monkeypatch.setattr(remote, "ls", ls)
    monkeypatch.setattr("raystack.storage.FIRST_WAIT_S", 0.01)
    folder = resolve("memory://away/step-0000000005", Tracking(kind="off"))
    assert (folder / "model.safetensors").is_file()
    assert not away, "the first answer was an error"


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("uri", "told"),
    [
        (
            "models:/digist@champion",
            [
                "no registered model 'digist'",
                "digits",
                "did you mean models:/digits@champion?",
                "registry.model=digist",
            ],
        ),
        (
            "models:/digits@champoin",
            ["no alias 'champoin'", "champion -> 1", "did you mean models:/digits@champion?"],
        ),
        ("models:/digits/7", ["no version 7", "versions 1"]),
        ("models:/digits", ["models:/name@alias or models:/name/version"]),
        ("/no/such/folder", ["no such folder"]),
    ],
)
def test_what_does_not_exist_is_told_with_what_does(place: Path, uri: str, told: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(uri, Tracking(uri=f"sqlite:///{place}/mlflow.db"))
    (problem,) = error.value.problems
    assert (problem.where, problem.got) == ("serving.model", uri)
    for part in told:
        assert part in str(problem)


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no MLflow store"):
        resolve("models:/digits@champion", Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db"))
    with pytest.raises(ConfigError, match="tracking is off"):
        resolve("models:/digits@champion", Tracking(kind="off"))
    with pytest.raises(ConfigError, match=r"no MLflow store .*got models:/tiny\)"):
        newest_version("tiny", Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db"))
    assert list(tmp_path.iterdir()) == []


def test_a_metric_that_mlflow_refuses_costs_neither_the_version_nor_the_alias(
    make_plan: MakePlan, place: Path, checkpoint: Path
) -> None:
    refused = {f"eval/{name}": 0.5 for name in ("acc@1", "mAP@50", "loss,x", "q" * 260, "")}
    many = {
        f"eval/class_{index}": 0.5 for index in range(1000)
    }  # with the others more than one request takes
    metrics = {**refused, "eval/nan": math.nan, "eval/inf": math.inf, "eval/f1": 0.25, **many}
    odd = replace(card("digits-odd", 5), metrics=metrics)
    with tracked(make_plan("digits-odd", "registry={model: odd, alias: best}")) as tracker:
        # Not logged before, as in a run that is gone on with after its last evaluation.
        registered = tracker.register(checkpoint / "model", odd)
        tracker.log_metrics(6, refused)
    assert registered is not None
    assert (registered.version, registered.alias) == ("models:/odd/1", "models:/odd@best")
    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    (model,) = client.search_logged_models(["1"], f"source_run_id = '{tracker.mlflow_run_id}'")
    assert {metric.key for metric in model.metrics or []} == metrics.keys() - refused.keys()
    (note,) = tracker.notes
    assert note.startswith("MLflow refused 5 metrics, which are not recorded: ")
    assert "'eval/acc@1'" in note


def test_a_model_folder_that_is_gone_is_noted(make_plan: MakePlan, tmp_path: Path) -> None:
    with tracked(make_plan("digits-gone")) as tracker:
        assert tracker.register(tmp_path, card("digits-gone", 5)) is None
    assert len(tracker.notes) == 1
    assert "model.json" in tracker.notes[0]


def test_nothing_is_lost_or_doubled_while_the_server_is_away(
    server: Server,
    make_plan: MakePlan,
    place: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setattr("raystack.registry.sender.PATIENCE_S", 1.0)
    monkeypatch.setattr("raystack.registry.sender.LAST_RETRY_S", 1.0)
    to_server = f"tracking.uri={server.uri}"

    killed = subprocess.Popen(
        [sys.executable, "-c", RUN_AND_WAIT, str(place / "config.yaml"), "digits-killed", to_server]
    )
    request.addfinalizer(killed.wait)
    request.addfinalizer(killed.kill)
    ended_away = open_tracker(make_plan("digits-ended-away", to_server))
    ended_away.start()
    for step in range(10):
        ended_away.log_metrics(step, {"train/loss": float(step), "nan": math.nan})
    assert ended_away.register(checkpoint / "model", card("digits-ended-away", 5)) is None
    ended_away.finish("FINISHED")
    assert ended_away.mlflow_run_id is None
    assert "for the next run that reaches it" in ended_away.notes[-1]
    (spool,) = (place / "spool").glob("digits-ended-away*.jsonl")
    until(lambda: any("train/loss" in file.read_text() for file in (place / "spool").glob("digits-killed*")))
    killed.kill()
    killed.wait()
    left = spool.read_bytes()

    server.start()
    through = open_tracker(make_plan("digits-through", to_server))
    through.start()
    for step in range(60):
        through.log_metrics(step, {"train/loss": float(step)})
        time.sleep(0.02)
        if step == 20:
            until(lambda: through.mlflow_run_id is not None)
            server.kill()
        if step == 40:
            until(lambda: any((place / "spool").glob("digits-through*")))
            server.start()
    result = through.register(checkpoint / "model", card("digits-through", 59))
    through.finish("FINISHED")

    assert not spool.exists()
    spool.write_bytes(left)  # as if the process that sent it had ended before it could delete it
    with tracked(make_plan("digits-last", to_server)):
        pass
    assert not list((place / "spool").iterdir())
    assert any("was away" in note for note in through.notes)
    client = MlflowClient(server.uri)
    ends = [
        ("digits-ended-away", 10, "FINISHED"),
        ("digits-killed", 7, "RUNNING"),
        ("digits-through", 60, "FINISHED"),
    ]
    for run_id, steps, status in ends:
        (run,) = client.search_runs(["1"], f"tags.`raystack.run_id` = '{run_id}'")
        assert run.info.status == status
        assert run.data.params["training.epochs"] == "1"
        points = client.get_metric_history(run.info.run_id, "train/loss")
        assert sorted((point.step, point.value) for point in points) == [
            (step, float(step)) for step in range(steps)
        ]
    assert through.mlflow_run_id == run.info.run_id
    assert through.links["mlflow"] == f"{server.uri}/#/experiments/1/runs/{run.info.run_id}"

    assert result is not None
    assert result.version == "models:/digits/2", "the spooled registration came first"
    assert client.get_model_version_by_alias("digits", "champion").version == "2"
    folder = resolve("models:/digits@champion", Tracking(uri=server.uri))
    assert (folder / "model.safetensors").read_bytes() == (
        checkpoint / "model/model.safetensors"
    ).read_bytes()
    assert resolve("models:/digits/2", Tracking(uri=server.uri)) == folder, "downloaded once"
    server.kill()
    with pytest.raises(ServingError, match=r"tracking\.uri"):
        resolve("models:/digits@champion", Tracking(uri=server.uri))


RUN_AND_WAIT = """
import sys, time
from raystack.config import load
from raystack.plan import plan_training
from raystack.registry import open_tracker
tracker = open_tracker(plan_training(load(sys.argv[1], [sys.argv[3]]), sys.argv[2]))
tracker.start()
for step in range(7):
    tracker.log_metrics(step, {"train/loss": float(step)})
time.sleep(120)
"""


@contextmanager
def refusing_server() -> Iterator[tuple[str, list[str | None]]]:
    """Its address, and the Authorization headers of the requests that it answered with 401."""
    headers: list[str | None] = []

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers.append(self.headers.get("Authorization"))
            self.send_response(401)
            self.end_headers()
            self.wfile.write(b"You are not authenticated.")

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", headers
        http.shutdown()
        thread.join()


def test_a_login_that_is_refused_is_noted_and_not_repeated(
    make_plan: MakePlan, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TEST_SECRET", "pass-word")
    with refusing_server() as (uri, headers):
        login = ["tracking.username=ann", "tracking.password='secret:env:MLFLOW_TEST_SECRET'"]
        tracker = open_tracker(make_plan("digits-login", f"tracking.uri={uri}", *login))
        tracker.start()
        tracker.log_metrics(1, {"train/loss": 1.0})
        time.sleep(1.0)
        started = time.monotonic()
        tracker.finish("FINISHED")
        assert time.monotonic() - started < 5
    assert headers == ["Basic YW5uOnBhc3Mtd29yZA=="]
    (note,) = tracker.notes
    assert "it answers with status 401: You are not authenticated." in note
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ
    (spool,) = (place / "spool").glob("digits-login*")
    assert "train/loss" in spool.read_text()
    assert "pass-word" not in spool.read_text()
    spool.unlink()
