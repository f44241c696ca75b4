"""Every benchmark runs, prints its table, and leaves the figures that benchmarks/README.md describes."""

import json
import os
import shutil
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
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / f"{name}.py"),
        "--quick",
        "--output",
        str(output),
        *options,
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    results: dict[str, Any] = json.loads(output.read_text())
    assert results["benchmark"] == name
    assert {"cores", "processor", "python"} <= set(results["machine"])
    assert str(ROOT) not in output.read_text()
    return done.stdout, results


@pytest.mark.slow
def test_startup_imports_nothing_heavy(tmp_path: Path) -> None:
    printed, results = run("startup", tmp_path / "startup.json")
    assert [row["imported"] for row in results["rows"].values()] == [[]] * 5
    budgets = {name: row["budget_s"] for name, row in results["rows"].items() if row["budget_s"]}
    assert budgets == {
        "raystack.train --help": 0.3,
        "raystack.train --dry-run": 1.0,
        "raystack.train --dry-run --json": 1.0,
    }
    for name, row in results["rows"].items():
        assert name in printed
        assert set(row["seconds"]) == SPREAD


@pytest.mark.slow
def test_rendering_needs_nothing_heavy(tmp_path: Path) -> None:
    printed, results = run("render", tmp_path / "render.json")
    assert results["imported"] == []
    assert results["budget_s"] == 0.3
    assert {"job", "kueue_gpu", "service", "cron"} <= set(results["rows"])
    for name, row in results["rows"].items():
        assert f"\n{name} " in printed
        assert set(row["all_s"]) == SPREAD


@pytest.mark.slow
def test_tpe_is_better_than_random_search(tmp_path: Path) -> None:
    """By the benchmark's own status."""
    printed, results = run("search", tmp_path / "search.json")
    assert {name: set(row) for name, row in results["rows"].items()} == {
        "Branin": {"random", "tpe", "cmaes"},
        "Hartmann 6": {"random", "tpe", "cmaes"},
        "mixed": {"random", "tpe"},
    }
    assert all(set(found["regret"]) == SPREAD for row in results["rows"].values() for found in row.values())
    assert "TPE is better than random search: on all" in printed


@pytest.mark.slow
def test_studies_are_timed_beside_ray_tune(tmp_path: Path) -> None:
    printed, results = run("tuning", tmp_path / "tuning.json")
    assert set(results["rows"]["burn"]) == {"raystack", "Ray Tune, reuse_actors"}
    for name, row in results["rows"]["burn"].items():
        assert f"\n{name} " in printed
        assert set(row) == {"up_s", "trials_s", "total_s"}


@pytest.mark.slow
def test_overhead_is_told_by_part(tmp_path: Path) -> None:
    printed, results = run("overhead", tmp_path / "overhead.json")
    assert {name: set(values) for name, values in results["step_us"].items()} == {
        "raystack": SPREAD,
        "by hand": SPREAD,
    }
    assert set(results["added_us"]) == SPREAD
    assert "raystack adds" in printed
    assert all(part in printed for part in results["parts_us"])


@pytest.mark.slow
def test_the_memory_plan_is_near_the_truth(tmp_path: Path) -> None:
    printed, results = run("memory", tmp_path / "memory.json")
    assert set(results["rows"]) == {"fp32", "gradient checkpointing"}
    for name, row in results["rows"].items():
        assert f"\n{name} " in printed
        assert row["activations_ratio"] == pytest.approx(1, rel=0.01)
        assert row["ratio"] == pytest.approx(1, rel=0.1)


@pytest.mark.slow
def test_checkpoints_are_compared_with_blocking_ones(tmp_path: Path) -> None:
    printed, results = run("checkpoint", tmp_path / "checkpoint.json")
    assert set(results["rows"]) == {"raystack", "torch.save", "DCP, blocking"}
    assert results["state_bytes"] > 12 * 800_000  # weights and two moments
    for name, row in results["rows"].items():
        assert f"\n{name} " in printed
        for key in ("stalled_s", "extra_s", "late_s", "stalled_ratio", "extra_ratio"):
            assert set(row[key]) == SPREAD
            assert key in row["first"]
    ours = results["rows"]["raystack"]
    assert (
        0 < ours["saved_stalled_s"]["median"] <= ours["stalled_s"]["median"] < ours["published_s"]["median"]
    )
    assert results["rows"]["DCP, blocking"]["stalled_ratio"]["median"] == 1.0


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.long
def test_recovery_is_compared_with_bare_ray_train(tmp_path: Path) -> None:
    printed, results = run("recovery", tmp_path / "recovery.json")
    assert set(results["rows"]) == {"raystack cold", "ray-train cold"}
    for name, row in results["rows"].items():
        assert f"\n{name} " in printed
        assert 0 < row["begin_s"]["median"] < row["any_step_s"]["median"] <= row["new_step_s"]["median"]
        # They went on from a checkpoint; the newest may not have been finished.
        assert row["redone"]["median"] < 2 * results["settings"]["every"]
    assert results["rows"]["ray-train cold"]["new_step_ratio"]["median"] == 1.0


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize(
    "compared",
    [
        pytest.param(("raystack", "torchrun"), marks=pytest.mark.minutes),
        pytest.param(
            ("torchrun", "ray-train", "accelerate", "raystack zero3", "torchrun zero3"),
            marks=pytest.mark.long,
        ),
    ],
    ids=["ours", "others"],
)
def test_training_compares_the_same_work(compared: tuple[str, ...], tmp_path: Path) -> None:
    printed, results = run("training", tmp_path / "training.json", "--only", *compared)
    shape = {"workers", "threads", "global_batch", "context", "parameters", "device", "precision", "compile"}
    assert set(results["settings"]) == {"rounds", "steps", "warmup"} | shape
    assert set(results["rows"]) == set(compared)
    for name, row in results["rows"].items():
        assert f"\n{name} " in printed
        for key in ("step_ms", "first_step_s", "exit_s", "step_ratio"):
            assert set(row[key]) == SPREAD
        assert 0 < row["first_step_s"]["median"] < row["exit_s"]["median"]
        assert row["tokens_per_s"] == pytest.approx(32 * 128 / row["step_ms"]["median"] * 1e3, rel=1e-4)
    for baseline in {"torchrun", "torchrun zero3"} & set(compared):
        assert results["rows"][baseline]["step_ratio"]["median"] == 1.0


@pytest.mark.slow
def test_the_run_on_a_gpu_has_a_small_form_on_the_cpu(tmp_path: Path) -> None:
    printed, results = run(
        "training", tmp_path / "training.json", "--model", "gpt2", "--precision", "bf16", "--only", "torchrun"
    )
    assert {key: results["settings"][key] for key in ("device", "precision", "context")} == {
        "device": "cpu",
        "precision": "bf16",
        "context": 64,
    }
    assert "parameters in bf16" in printed
    assert results["rows"]["torchrun"]["mfu"] is None  # the peak of a CPU is not known


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_rollouts_lose_no_request(tmp_path: Path) -> None:
    printed, results = run("rollout", tmp_path / "rollout.json", "--parts", "lasting", "equal")
    lasted, runs = results["lasting"], results["equal"]
    assert (lasted["failed"], lasted["wrong"], lasted["keys_moved"], runs["failed"]) == ({}, 0, 0, {})
    assert runs["ended"] == {"finished": 1}
    assert all(event in printed for event in lasted["events"])
    assert [share["weight"] for share in lasted["shares"]] == [0.0, 0.05, 0.5, 1.0] * 2


@pytest.mark.minutes
@pytest.mark.parametrize("way", ["json", "grpc"])
def test_a_served_model_is_asked_beside_others(way: str, tmp_path: Path) -> None:
    if way != "grpc" and shutil.which("wrk") is None:
        pytest.skip("needs wrk, which asks over HTTP")
    printed, results = run("serving", tmp_path / "serving.json", "--way", way)
    names = ["raystack", "fastapi"] if way == "json" else ["raystack"]
    assert list(results["servers"]) == names
    assert set(results["ratios"]) == set(names[1:])
    for name, row in results["servers"].items():
        assert f"\n{name} " in printed
        (load,) = row["loads"].values()
        assert set(load["per_s"]) == SPREAD
        assert load["failed"]["max"] == 0
        assert load["per_s"]["min"] > 0
