"""A command that is killed, interrupted or told to end: no row is lost or doubled by the one that goes on."""

import random
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from processes import Command

pytestmark = pytest.mark.slow
TINY = Path(__file__).parents[3] / "tiny" / "config.yaml"


@pytest.fixture
def command(
    model: Callable[..., Path], x: npt.NDArray[np.float32], tmp_path: Path
) -> Callable[..., Sequence[str]]:
    """The words of a command that predicts 25 parts, 8 rows each, in 2.5 seconds."""
    folder = model(pass_s=0.05)
    pd.DataFrame({"id": range(len(x)), "x": list(x)}).to_parquet(tmp_path / "data.parquet", row_group_size=30)

    def words(out: str) -> Sequence[str]:
        options = [
            "--model",
            str(folder),
            "--in",
            str(tmp_path / "data.parquet"),
            "--out",
            str(tmp_path / out),
        ]
        overrides = [f"experiment.storage={tmp_path}", "predict={batch: 4, part_rows: 8}"]
        return [sys.executable, "-m", "raystack.predict", str(TINY), *options, *overrides]

    return words


def output(folder: Path) -> pd.DataFrame:
    """The rows as any program reads them."""
    return pd.read_parquet(folder)


def wait_for_parts(folder: Path, more: int) -> None:
    """Wait until there are some more parts than now."""
    enough = len(list(folder.glob("*.parquet"))) + more
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.parquet"))) < enough:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_kills_at_any_moment_leave_what_an_unbroken_run_leaves(
    command: Callable[..., Sequence[str]], tmp_path: Path
) -> None:
    whole = Command(command("whole"))
    assert whole.wait(120) == 0, whole.output
    seed = random.randrange(1000)
    moments = random.Random(seed)
    for _ in range(3):
        run = Command(command("broken"))
        run.until("rows of 1 file")
        wait_for_parts(tmp_path / "broken", moments.randrange(1, 6))
        time.sleep(moments.uniform(0, 0.1))
        run.kill()
    run = Command(command("broken"))
    assert run.wait(120) == 0, (seed, run.output)
    assert " done before" in run.output
    pd.testing.assert_frame_equal(output(tmp_path / "broken"), output(tmp_path / "whole"))
    names = [[path.name for path in sorted((tmp_path / out).iterdir())] for out in ("broken", "whole")]
    assert names[0] == names[1], seed
    assert output(tmp_path / "whole")["id"].tolist() == list(range(200))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_soon_and_says_how_to_go_on(
    number: int, command: Callable[..., Sequence[str]], tmp_path: Path
) -> None:
    run = Command(command("out"))
    run.until("rows of 1 file")
    wait_for_parts(tmp_path / "out", 1)
    asked = time.monotonic()
    run.process.send_signal(number)
    assert run.wait(60) == 130, run.output
    assert time.monotonic() - asked < 10
    said = re.search(
        r"(\d+) of 200 rows are done and stay in (.*): the same command goes on from there", run.output
    )
    assert said is not None, run.output
    done = len(output(tmp_path / "out"))
    assert (int(said[1]), said[2]) == (done, str(tmp_path / "out"))
    assert run.lines[-1] == "interrupted\n"
    assert "Traceback" not in run.output
    again = Command(command("out"))
    assert again.wait(120) == 0, again.output
    assert f"200 rows of 1 file, {done} done before" in again.output
    assert output(tmp_path / "out")["id"].tolist() == list(range(200))
