"""Drift of a served model is detected, and brings a new version without a hand; or a reason why not."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from mlflow_server import free_port

from raystack import Experiment
from raystack.config.follow import Follow
from raystack.outcome import Outcome
from raystack.plan.follow import FollowPlan
from raystack.rollout.automation.record import Entry
from raystack.rollout.follow.run import run as follow
from raystack.serving.cloudevents import DRIFT_DETECTED

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TINY = Path(__file__).parents[1] / "tiny" / "config.yaml"
LONGEST_S = 120.0
SHIFT = 4.0


class Clients:
    """Requests with data that is like that of the training, or has shifted."""

    def __init__(self, url: str) -> None:
        self._url, self._over = url, threading.Event()
        self.shift = 0.0
        self.failed: list[str] = []
        self.version = ""
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> "Clients":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        random = np.random.default_rng(0)
        with httpx.Client(timeout=30) as client:
            while not self._over.wait(0.05):
                values = random.normal(self.shift, 1.0, (8, 4)).ravel().tolist()
                tensor = {"name": "x", "datatype": "FP32", "shape": [8, 4], "data": values}
                answer = client.post(f"{self._url}/infer", json={"inputs": [tensor]})
                if answer.status_code != 200:
                    self.failed.append(answer.text)
                self.version = answer.headers.get("raystack-version", "")


GATES = "registry.gates={champion: {metric: eval/error, mode: min}}"
BETTER, WORSE = "['training.epochs=30']", "['training.epochs=1', 'training.optimizer.lr=1.0e-6']"


@pytest.fixture
def experiment(tmp_path: Path, ray_cluster: str) -> Experiment:
    """A poor model that is trained and served, and what is to be done when its data drifts."""
    common = ["tracking=local", f"experiment.storage={tmp_path}", "registry.model=tiny"]
    common += ["registry.alias=champion", GATES]
    Experiment(TINY, *common, "training.epochs=1").train(lambda event: None)
    watched = f"{{to: '{tmp_path}/drift', sample: 1.0, window_s: 4, min_samples: 100}}"
    served = [f"serving.port={free_port()}", "serving.lineage=true", f"serving.drift={watched}"]
    served += ["serving.cpus_per_replica=0.25", "resources.wait_s=240", f"target.address={ray_cluster}"]
    own = [f"+automation.triggers.drift.events={tmp_path}/drift", "+automation.then=promote"]
    own += ["+automation.cooldown_s=600", "+automation.poll_s=0.2", f"+automation.events.to={tmp_path}/told"]
    return Experiment(TINY, *common, *served, *own, f"+automation.action.overrides={BETTER}")


@contextmanager
def followed(experiment: Experiment, tmp_path: Path) -> Iterator[None]:
    """Serve what the alias points to, in place."""
    over = threading.Event()
    tracking = experiment.config.tracking.model_copy(update={"uri": f"sqlite:///{tmp_path}/mlflow.db"})
    place = f"{tmp_path}/follow"
    plan = FollowPlan("tiny", "champion", Follow(poll_s=0.5), tracking, place, False, experiment.config)
    told = threading.Event()

    def say(text: str) -> None:
        if "counts as served" in text:
            told.set()

    following = threading.Thread(target=follow, args=(plan, say), kwargs={"ends": over.is_set})
    following.start()
    try:
        assert told.wait(LONGEST_S)
        yield
    finally:
        over.set()
        following.join(LONGEST_S)


@pytest.fixture
def clients(experiment: Experiment) -> Iterator[Clients]:
    from raystack.serving.deploy import undeploy

    outcome = experiment.deploy()
    assert isinstance(outcome, Outcome)
    try:
        with Clients(outcome.links["url"]) as clients:
            yield clients
    finally:
        undeploy("tiny")


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONGEST_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_drift_brings_a_better_version_and_a_worse_one_is_refused(
    experiment: Experiment, clients: Clients, tmp_path: Path
) -> None:
    steps: list[Entry] = []
    experiment.automate(steps.append, once=True)
    assert steps == [], "nothing has drifted"
    with followed(experiment, tmp_path):
        clients.shift = SHIFT
        until(lambda: drifted(experiment, "1"))
        experiment.automate(steps.append, once=True)
        until(lambda: clients.version == "2")
        until(lambda: drifted(experiment, "2"))
        worse = ("automation.cooldown_s=0", f"automation.action.overrides={WORSE}")
        experiment.override(*worse).automate(steps.append, once=True)
    assert clients.version == "2"
    assert clients.failed == []

    taken = [(step.round, step.step) for step in experiment.automation_steps if step.round is not None]
    first = ["began", "started", "trained", "passed", "ended"]
    second = ["began", "started", "trained", "refused", "ended"]
    assert taken[:10] == [*(("0001", step) for step in first), *(("0002", step) for step in second)]
    results = [step.what for step in experiment.automation_steps if step.step == "ended"]
    assert results[0] == "models:/tiny/2 was promoted to champion"
    assert results[1].startswith("models:/tiny/3 was refused: champion: eval/error is ")
    moves = [(move.what, move.version, move.who) for move in experiment.moves]
    assert moves[1:3] == [("promoted", "2", "raystack automate"), ("refused", "3", "raystack automate")]
    events = (tmp_path / "told" / "tiny.automation.jsonl").read_text().splitlines()
    assert {json.loads(line)["type"] for line in events} >= {
        f"io.raystack.automation.{step}" for step in second
    }


def drifted(experiment: Experiment, version: str) -> bool:
    """Whether a replica has told of drift of a version's data."""
    folder = Path(str(experiment.config.serving.drift.to))
    lines = [line for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]
    events = [json.loads(line) for line in lines]
    return any(each["type"] == DRIFT_DETECTED and each["data"]["version"] == version for each in events)
