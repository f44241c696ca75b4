"""kuberay/manifests is what `raystack render` makes of the configs in kuberay/, and a schedule."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "kuberay" / "manifests"
RENDERED = (
    ("kuberay/config.yaml", "target.cron.schedule='0 3 * * *'", "--as", "all"),
    ("kuberay/tuning.yaml", "--as", "tune"),
    ("kuberay/tuning.yaml", "tuning=median", "--as", "katib"),
)


def test_the_manifests_are_fresh(tmp_path: Path) -> None:
    for words in RENDERED:
        command = [sys.executable, "-m", "raystack", "render", *words, "-n", "default", "-o", str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr
    fresh = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.glob("*.yaml")}
    assert {file.removesuffix(".yaml") for file in fresh} == {
        *("job", "service", "cluster", "cron"),
        *("tune", "katib"),
    }
    kept = {file.name: file.read_text(encoding="utf-8") for file in MANIFESTS.glob("*.yaml")}
    assert kept == fresh, "kuberay/manifests is not what the configs say: run `make docs`"


def test_the_roles_are_fresh() -> None:
    words = ["render", "kuberay/config.yaml", "-n", "default", "--as", "role"]
    command = [sys.executable, "-m", "raystack", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == (ROOT / "kuberay" / "role.yaml").read_text(encoding="utf-8"), "run `make docs`"
