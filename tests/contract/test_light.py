"""`--help` and `--dry-run` import nothing heavy: that is what keeps them fast."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
HEAVY = {"ray", "torch", "mlflow", "deepspeed", "kubernetes", "numpy", "pandas", "pyarrow"}
PROBE = """
import contextlib, io, json, runpy, sys
sys.argv = {argv}
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    runpy.run_module({argv}[0], run_name="__main__", alter_sys=True)
print(json.dumps(sorted(sys.modules)))
"""

KUBERAY = str(ROOT / "kuberay" / "config.yaml")
MANIFEST = str(ROOT / "kuberay" / "manifests" / "job.yaml")
EXAMPLE = str(ROOT / "examples" / "01_digits" / "config.yaml")
TEXT = str(ROOT / "benchmarks" / "results" / "startup.json")


@pytest.mark.parametrize(
    ("argv", "also"),
    [
        (["raystack", "--help"], {"pydantic", "hydra", "rich"}),
        (["raystack.train", "--help"], {"pydantic", "hydra", "rich"}),
        (["raystack.serve", "--help"], {"pydantic", "hydra", "rich"}),
        (["raystack.predict", "--help"], {"pydantic", "hydra", "rich"}),
        (["raystack", "checkpoint", "--help"], {"pydantic", "hydra", "rich", "fsspec"}),
        (["raystack", "status", "--help"], {"pydantic", "hydra", "rich"}),
        (["raystack", "render", "--help"], {"pydantic", "hydra", "rich"}),
        (["raystack.train", EXAMPLE, "--dry-run"], set()),
        (["raystack.train", EXAMPLE, "--dry-run", "--json"], set()),
        (["raystack.serve", EXAMPLE, "--dry-run"], set()),
        (["raystack.predict", EXAMPLE, "--in", TEXT, "--out", "predictions", "--dry-run"], set()),
        (["raystack.train", EXAMPLE, "training.epocs=3"], set()),
        (["raystack", "schema"], set()),
        (["raystack.train", KUBERAY, "--dry-run"], set()),
        (["raystack", "render", KUBERAY, "--as", "all"], set()),
        (["raystack", "lint", MANIFEST], set()),
    ],
)
def test_nothing_heavy_is_imported(argv: list[str], also: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(argv=argv)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    imported = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert imported & (HEAVY | also) == set()
