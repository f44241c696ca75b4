"""Weights of the registry on Ray's workers, none of which talks to MLflow."""

import json
from pathlib import Path

import pytest
from driver import TINY

from raystack import Experiment
from raystack.events import Event, Initialised

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.timeout(400)
def test_workers_and_trials_begin_with_what_the_driver_has_settled(ray_cluster: str, tmp_path: Path) -> None:
    registry = ["tracking=local", "registry={model: tiny, alias: champion}"]
    inline = Experiment(TINY, f"experiment.storage={tmp_path}", *registry, "resources=inline")
    first = inline.train(lambda event: None)
    second = inline.train(lambda event: None)

    heard: list[Event] = []
    begins = [f"experiment.storage={tmp_path}", "tracking=local", "training.init_from=models:/tiny@champion"]
    Experiment(TINY, *begins, "resources={workers: 2}").train(heard.append)
    (text,) = [event.text for event in heard if isinstance(event, Initialised)]
    assert text.startswith(f"weights of models:/tiny/2 (run {second.run_id}, step 6): loaded ")

    choices = ["models:/tiny/1", "models:/tiny@champion"]
    space = f"tuning.space={{training.init_from: {{grid: {json.dumps(choices)}}}}}"
    tuning = ["tuning={metric: eval/error, mode: min, search: {kind: grid}, keep: 2}", space]
    study = Experiment(TINY, *begins[:2], *tuning).tune(lambda event: None)
    found = {
        json.loads(card.read_text())["init_from"]["run_id"]
        for card in Path(study.folder).glob("runs/*/checkpoints/*/model/model.json")
    }
    assert found == {first.run_id, second.run_id}
