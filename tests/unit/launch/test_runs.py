"""Which run is gone on with."""

from pathlib import Path

import pytest

from raystack.config import RunConfig, dump, load
from raystack.errors import LaunchError
from raystack.launch import lease, runs

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load(TINY, [f"experiment.storage={tmp_path}", "experiment.resume=auto"])


def begin(config: RunConfig, run: str) -> Path:
    """A run that trained, as far as its folder tells."""
    folder = Path(config.experiment.storage, "runs", run)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(config))
    return folder


def test_a_run_whose_ray_never_answered_is_passed_over(config: RunConfig) -> None:
    begin(config, "tiny-20260101-000000-aaaa")
    with lease.hold(f"{config.experiment.storage}/runs/tiny-20260102-000000-bbbb"):
        pass
    assert runs.find(config, None) == runs.unfinished(config) == "tiny-20260101-000000-aaaa"
    with pytest.raises(LaunchError, match="did you mean tiny-20260101-000000-aaaa"):
        runs.find(config, "tiny-20260102-000000-bbbb")


def test_a_config_that_was_cut_off_is_nobody_s(config: RunConfig) -> None:
    (begin(config, "tiny-20260101-000000-aaaa") / "config.yaml").write_text("")
    assert runs.unfinished(config) is None


def test_a_run_that_has_ended_is_not_gone_on_with_by_itself(config: RunConfig) -> None:
    (begin(config, "tiny-20260101-000000-aaaa") / "outcome.json").write_text("{}")
    assert runs.unfinished(config) is None
