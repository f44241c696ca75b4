"""Parameter groups, layer-wise decay, clipping by value, freezing and every optimizer: each run trains as a
plain torch loop does, under every strategy, across a resume on another number of workers; or it is refused
before its first step with the reason.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from grouped_workers import CASES, CONFIG, STRATEGIES, WAYS
from torch import nn

from raystack.config import load
from raystack.config.training import Training
from raystack.errors import ConfigError
from raystack.training.freeze import freeze
from raystack.training.groups import settings_of

SCRIPT = Path(__file__).with_name("grouped_workers.py")

Table = dict[str, dict[str, dict[str, dict[str, Any]]]]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    folder = tmp_path_factory.mktemp("grouped")
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=400
    )
    assert ran.returncode == 0, ran.stderr
    read: Table = json.loads((folder / "results.json").read_text())
    return read


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("case", CASES)
def test_it_trains_as_in_a_plain_loop_on_any_number_of_workers(
    table: Table, case: str, strategy: str, way: str
) -> None:
    cell = table[case][strategy][way]
    assert cell == {name: pytest.approx(0, abs=2e-6) for name in ("losses", "weights")}


def training(*overrides: str) -> Training:
    return load(CONFIG, [*overrides]).training


def model() -> nn.ModuleDict:
    made = nn.ModuleDict({"embed": nn.Linear(2, 2), "blocks": nn.ModuleList([nn.Linear(2, 2)] * 1)})
    made["head"] = nn.Linear(2, 2, bias=False)
    made["head"].weight = made["embed"].weight
    return made


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            "[{match: 'embde.*'}]",
            r"groups.0.match: no parameter .* did you mean 'embed.\*'\?",
        ),
        ("[{match: embed}]", r"did you mean 'embed.\*'\?"),
        ("[{match: ['blocks.*', xyz]}]", r"the names are embed.weight, embed.bias, blocks.0.weight, \.\.\."),
        (
            "[{match: '*'}, {match: 'embed.*'}]",
            r"groups.1.match: all .* has an earlier group",
        ),
    ],
)
def test_a_group_without_a_parameter_is_refused(groups: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_of(training(f"training.optimizer.groups={groups}"), model(), [], {})


def test_a_tied_weight_is_found_by_each_of_its_names() -> None:
    made = settings_of(
        training("training.optimizer.groups=[{match: head.weight, lr_scale: 0.5}]"), model(), [], {}
    )
    assert {name: one.lr_scale for name, one in made.items()} == {
        "embed.weight": 0.5,
        "embed.bias": 1.0,
        "blocks.0.weight": 1.0,
        "blocks.0.bias": 1.0,
    }


def test_layer_decay_needs_the_tasks_blocks() -> None:
    with pytest.raises(ConfigError, match=r"layer_decay: the task has to say which blocks"):
        settings_of(training("training.optimizer.layer_decay=0.9"), model(), [], {})


def test_freezing_everything_or_nothing_is_refused() -> None:
    for entries, message in (
        ("[{match: xyz}]", r"training.freeze.0.match: no parameter has such a name"),
        ("[{match: '*', until_step: 3}]", r"training.freeze: it leaves nothing to train"),
    ):
        with pytest.raises(ConfigError, match=message):
            freeze(model(), training(f"training.freeze={entries}").freeze)


def test_what_two_entries_freeze_is_frozen_as_long_as_either_says() -> None:
    entries = "[{match: 'embed.*', until_step: 3}, {match: '*.bias', until_step: 5}, {match: blocks.0.bias}]"
    made = model()
    assert freeze(made, training(f"training.freeze={entries}").freeze) == {"embed.weight": 3, "embed.bias": 5}
    assert [name for name, one in made.named_parameters() if not one.requires_grad] == ["blocks.0.bias"]
