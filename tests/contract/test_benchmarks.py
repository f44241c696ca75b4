"""Every benchmark runs, prints its table, and leaves the figures that benchmarks/README.md describes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SPREAD = {"median", "min", "max"}


def run(name: str, output: Path, *options: str) -> tuple[str, dict[str, Any]]:
    """What `benchmarks/<name>.py --quick` prints, and its JSON."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--quick", "--output", str(output), *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    results: dict[str, Any] = json.loads(output.read_text())
    assert results["benchmark"] == name
    assert {"cores", "processor", "python"} <= set(results["machine"])
    assert str(ROOT) not in output.read_text()
    return done.stdout, results


def test_startup_imports_nothing_heavy(tmp_path: Path) -> None:
    printed, results = run("startup", tmp_path / "startup.json")
    assert [row["imported"] for row in results["rows"].values()] == [[]] * 5
    budgets = {name: row["budget_s"] for name, row in results["rows"].items() if row["budget_s"]}
    assert budgets == {"raystack.train --help": 0.3, "raystack.train --dry-run": 1.0, "raystack.train --dry-run --json": 1.0}
    for name, row in results["rows"].items():
        assert name in printed
        assert set(row["seconds"]) == SPREAD


@pytest.mark.slow
def test_overhead_is_told_by_part(tmp_path: Path) -> None:
    printed, results = run("overhead", tmp_path / "overhead.json")
    assert {name: set(values) for name, values in results["step_us"].items()} == {"raystack": SPREAD, "by hand": SPREAD}
    assert set(results["added_us"]) == SPREAD
    assert "raystack adds" in printed
    assert all(part in printed for part in results["parts_us"])


@pytest.mark.slow
@pytest.mark.ray
def test_training_compares_the_same_work(tmp_path: Path) -> None:
    compared = ("raystack", "torchrun", "ray-train", "accelerate")
    printed, results = run("training", tmp_path / "training.json", "--only", *compared)
    assert set(results["settings"]) == {"rounds", "steps", "warmup", "workers", "threads", "global_batch", "context"}
    assert set(results["rows"]) == set(compared)
    for name, row in results["rows"].items():
        assert f"\n{name} " in printed
        for key in ("step_ms", "first_step_s", "exit_s", "step_ratio"):
            assert set(row[key]) == SPREAD
        assert 0 < row["first_step_s"]["median"] < row["exit_s"]["median"]
        assert row["tokens_per_s"] == pytest.approx(32 * 128 / row["step_ms"]["median"] * 1e3, rel=1e-4)
    assert results["rows"]["torchrun"]["step_ratio"]["median"] == 1.0
