"""Drift of a served model brings a better version without a hand, under load; and one that is bad in
serving alone goes back.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from mlflow_server import free_port

from raystack import Experiment
from raystack.outcome import Outcome
from raystack.rollout.automation.record import Entry
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
        self.answers: Counter[str] = Counter()
        """By version, and those that a bad version failed to give."""
        self.failed: list[str] = []
        """Others that there were none for."""
        self._threads = [threading.Thread(target=self._ask, args=(seed,)) for seed in range(2)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        with httpx.Client(timeout=30) as client:
            while not self._over.wait(0.03):
                values = random.normal(self.shift, 1.0, (8, 4)).ravel().tolist()
                tensor = {"name": "x", "datatype": "FP32", "shape": [8, 4], "data": values}
                try:
                    answer = client.post(f"{self._url}/infer", json={"inputs": [tensor]})
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))
                    continue
                if answer.status_code == 200:
                    self.answers[answer.headers["raystack-version"]] += 1
                elif "a bad version" in answer.text:
                    self.answers["bad"] += 1
                else:
                    self.failed.append(answer.text)


# An equally good version passes, too: what is bad of it is not in what it was evaluated on.
GATES = "registry.gates={champion: {metric: eval/error, mode: min, margin: -0.05}}"
STEPS = "[{weight: 0.3, min_requests: 20, min_s: 2}, {weight: 1.0, min_requests: 20, min_s: 1}]"
BETTER = "automation.action.overrides=['training.epochs=30']"
BAD = "automation.action.overrides=['training.epochs=30', '+task.args.broken=shifted']"


@pytest.fixture
def experiment(tmp_path: Path, ray_cluster: str) -> Experiment:
    """A poor model that is trained and served, and what is to be done when its data drifts."""
    common = ["tracking=local", f"experiment.storage={tmp_path}", "registry.model=tiny"]
    common += ["registry.alias=champion", GATES]
    Experiment(TINY, *common, "training.epochs=1").train(lambda event: None)
    watched = f"{{to: '{tmp_path}/drift', sample: 1.0, window_s: 4, min_samples: 100}}"
    served = [f"serving.port={free_port()}", "serving.lineage=true", f"serving.drift={watched}"]
    served += ["serving.cpus_per_replica=0.25", "resources.wait_s=240", f"target.address={ray_cluster}"]
    own = [f"+automation.triggers.drift.events={tmp_path}/drift", f"+automation.events.to={tmp_path}/told"]
    own += ["+automation.cooldown_s=600", "+automation.poll_s=0.2", f"+{BETTER}"]
    rolled = [f"+rollout.steps={STEPS}", "+rollout.analysis.every_s=0.5"]
    return Experiment(TINY, *common, *served, *own, *rolled)


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


def test_drift_brings_a_better_version_and_one_that_is_bad_in_serving_goes_back(
    experiment: Experiment, clients: Clients, tmp_path: Path
) -> None:
    told: list[Entry] = []
    until(lambda: clients.answers["1"] > 50)
    experiment.automate(told.append, once=True)
    assert told == [], "nothing has drifted"
    clients.shift = SHIFT
    until(lambda: drifted(experiment, "1"))
    experiment.automate(told.append, once=True)
    assert [decision.what for decision in experiment.rollout.decisions] == ["start", "step", "promote", "end"]
    until(lambda: drifted(experiment, "2"))
    assert clients.answers.keys() == {"1", "2"}
    experiment.override("automation.cooldown_s=0", BAD).automate(told.append, once=True)
    before = clients.answers.copy()
    until(lambda: clients.answers["2"] > before["2"] + 50)
    assert clients.answers["bad"] == before["bad"] > 0, "the bad version's share, and nothing after it"
    assert clients.failed == []

    taken = [(step.round, step.step) for step in experiment.automation_steps if step.step in STEPS_OF_ROUND]
    assert taken == [(number, step) for number in ("0001", "0002") for step in STEPS_OF_ROUND]
    results = [step.what for step in experiment.automation_steps if step.step == "ended"]
    assert results[0] == "models:/tiny/2: finished: models:/tiny/2 answers all requests"
    assert results[1].startswith("models:/tiny/3: rolled back: errors")
    rolled_back = experiment.rollout.decisions
    assert [decision.what for decision in rolled_back] == ["start", "roll back", "end"]
    assert rolled_back[1].numbers["candidate"]["errors"] > 0
    moves = [(move.what, move.version, move.before, move.who) for move in experiment.moves[1:]]
    good, bad = ("promoted", "2", "1", "raystack rollout"), ("rolled back", "3", None, "raystack rollout")
    assert moves == [good, bad]
    events = (tmp_path / "told" / "tiny.automation.jsonl").read_text().splitlines()
    assert {json.loads(line)["type"] for line in events} >= {
        f"io.raystack.automation.{step}" for step in STEPS_OF_ROUND
    }


STEPS_OF_ROUND = ("began", "started", "trained", "passed", "releasing", "ended")


def drifted(experiment: Experiment, version: str) -> bool:
    """Whether a replica has told of drift of a version's data."""
    folder = Path(str(experiment.config.serving.drift.to))
    lines = [line for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]
    events = [json.loads(line) for line in lines]
    return any(each["type"] == DRIFT_DETECTED and each["data"]["version"] == version for each in events)
