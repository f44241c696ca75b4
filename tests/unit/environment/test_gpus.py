"""What the machine's own tools say of its GPUs."""

import subprocess
from pathlib import Path

import pytest

from raystack.environment import gpus
from raystack.experiment import Experiment

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"


def tell(text: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have an nvidia-smi of the test's own print this."""
    command = folder / "nvidia-smi"
    command.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n", encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.parametrize(
    ("text", "visible", "gib"),
    [
        ("143771, 616", None, 139.80),
        ("81559, 551\n40960, 424", "0,1", 39.59),
        ("143771, 616", "MIG-4b0e", None),
        ("[N/A], [N/A]", None, None),
        ("No devices were found", None, None),
    ],
)
def test_the_smallest_gpu_counts_without_what_the_driver_keeps(
    text: str, visible: str | None, gib: float | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tell(text, monkeypatch, tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus.memory_gib() == (None if gib is None else pytest.approx(gib, abs=0.01))


def test_a_machine_without_the_driver_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*words: object, **options: object) -> None:
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(subprocess, "run", missing)
    assert gpus.memory_gib() is None


def test_auto_takes_the_memory_of_this_machines_gpu_or_of_a_share(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tell("143771, 616", monkeypatch, tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for share, told in ((1, "139.80"), (0.25, "34.95")):
        experiment = Experiment(TINY, f"resources.gpus_per_worker={share}", "training.batch.micro=auto")
        rows = dict(experiment.plan().rows)
        assert rows["batch"].startswith("32 = 32 micro x 1")
        assert f"of {told} GiB per worker" in rows["memory"]
