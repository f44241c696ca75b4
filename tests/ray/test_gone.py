"""A run answers when the Ray cluster that it ran on is gone: a real one, that `ray start` made."""

import json
import re
import sys
from pathlib import Path

import pytest
from driver import TINY
from processes import Command
from started import TOKEN, started, until

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_status_logs_and_diagnosis_outlive_the_cluster(tmp_path: Path) -> None:
    with started() as cluster:
        environment = {**cluster.environment, "RAY_AUTH_TOKEN": TOKEN, "RAYSTACK_STORAGE": str(tmp_path)}

        def raystack(*words: str) -> tuple[int, str]:
            command = Command([sys.executable, "-m", "raystack", *words], environment)
            return command.wait(), command.output

        words = ["target=job", f"target.address={cluster.dashboard}", "resources.workers=1"]
        code, told = raystack("train", str(TINY), *words, "prices.worker_per_hour=3", "task.args.raise_at=4")
        assert code == 0, told
        until(lambda: any(tmp_path.glob("runs/*/outcome.json")), 90)
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "outcome.json").read_text())["exit_code"] == 5
    kept = {file.relative_to(run / "kept").as_posix() for file in (run / "kept").rglob("*.log")}
    assert any("/worker-" in file for file in kept), kept
    where = (f"job/{run.name}", "--address", cluster.dashboard)
    code, told = raystack("status", *where)
    assert code == 0, told
    assert re.search(r"is failed \(\d+ s, 0\.\d+ USD\): step 4, rank 0: ", told), told
    code, told = raystack("logs", "--all", *where)
    assert (code, f"driver/{run.name}-a1" in told) == (0, True), told
    code, told = raystack("diagnose", *where)
    assert (code, "step 4, rank 0: " in told, f"its cluster is gone; this is from {run}" in told) == (
        0,
        True,
        True,
    )
