"""`raystack train --probe`: a short run by which the whole one is estimated."""

import re
from pathlib import Path

import pytest

from raystack.cli.main import main
from raystack.experiment import Experiment

TINY = str(Path(__file__).parents[2] / "tiny" / "config.yaml")


def test_a_probe_is_the_same_run_but_short_and_registers_nothing(tmp_path: Path) -> None:
    whole = Experiment(TINY, "registry.model=tiny", f"experiment.storage={tmp_path}")
    probe = whole.probing(30.0)
    assert probe.config.training.max_time_s == 30
    assert probe.config.registry.model is None
    back = {"training": whole.config.training, "registry": whole.config.registry}
    assert probe.config.model_copy(update=back) == whole.config


@pytest.mark.parametrize("other", ["--dry-run", "--resume"])
def test_it_is_a_new_run_that_trains(other: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", TINY, "--probe", "5", other]) == 2
    assert f"{other}: a probe is a new run that trains; drop it or --probe" in capsys.readouterr().err


@pytest.mark.slow
def test_its_end_shows_what_the_whole_run_would_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"experiment.storage={tmp_path}", "training.epochs=1000", "prices.worker_per_hour=36"]
    assert main(["train", TINY, *words, "tracking=off", "task.args.step_s=0.1", "--probe", "1"]) == 0
    told = capsys.readouterr().err
    assert "price: 36.00 USD per hour, prices.worker_per_hour" in told
    found = re.search(r"estimate: (\d+) min, \d\.\d\d USD for 3000 steps of 0\.1\d* s, as in tiny-", told)
    assert found is not None, told
