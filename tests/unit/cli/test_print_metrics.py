"""What reads metrics from a log, such as Katib's sidecar, finds them as lines of their own on stdout."""

import json
import re
from pathlib import Path

import pytest

from raystack.cli.main import main
from raystack.errors import ConfigError

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"


@pytest.mark.slow
def test_each_evaluation_prints_its_metrics_in_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"experiment.storage={tmp_path}", "training.evaluate.every_steps=2"]
    assert main(["train", str(TINY), *words, "--print-metrics"]) == 0
    lines = capsys.readouterr().out.splitlines()
    printed = [match for line in lines if (match := re.fullmatch(r"(eval/\w+)=(\S+)", line))]
    assert [match[1] for match in printed] == ["eval/error", "eval/ratio"] * 3
    (outcome,) = tmp_path.glob("runs/*/outcome.json")
    last = json.loads(outcome.read_text())["metrics"]
    assert {match[1]: float(match[2]) for match in printed[-2:]} == {
        name: last[name] for name in ("eval/error", "eval/ratio")
    }


@pytest.mark.parametrize("words", [["--json"], ["--dry-run"], ["target=job", "experiment.storage=/data"]])
def test_it_is_refused_where_it_could_not_be_read(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(TINY), "--print-metrics", *words]) == ConfigError.exit_code
    assert "error: --print-metrics: " in capsys.readouterr().err
