"""kuberay/manifests is what `raystack render` makes of kuberay/config.yaml and a schedule."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCHEDULE = "target.cron.schedule='0 3 * * *'"
MANIFESTS = ROOT / "kuberay" / "manifests"


def test_the_manifests_are_fresh(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "raystack",
        "render",
        "kuberay/config.yaml",
        SCHEDULE,
        "--as",
        "all",
        "-o",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    fresh = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()}
    assert {*fresh} == {"job.yaml", "service.yaml", "cluster.yaml", "cron.yaml"}
    kept = {file.name: file.read_text(encoding="utf-8") for file in MANIFESTS.iterdir()}
    assert kept == fresh, "kuberay/manifests is not what the config says: run `make docs`"
