"""`raystack checkpoint ls|verify|export`: what is told, and the status of it."""

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest

from raystack.checkpoint import CheckpointStore, Manifest
from raystack.checkpoint.weights import read_model
from raystack.cli.main import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
Save = Callable[..., Manifest]
Raystack = Callable[..., "Done"]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def raystack(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Done]]:
    """Runs `raystack checkpoint ...` in this process, which a command normally has to itself."""
    logger, terminate = logging.getLogger("raystack"), signal.getsignal(signal.SIGTERM)
    before = (logger.handlers[:], logger.level, logger.propagate)

    def run(*arguments: str) -> Done:
        status = main(["checkpoint", *arguments])
        return Done(status, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, terminate)
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture(params=["local", "s3"])
def run_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a run's folder."""
    return str(tmp_path / "run") if request.param == "local" else f"{request.getfixturevalue('bucket')}/run"


def damage(url: str) -> None:
    """Flip a bit, keep the size."""
    fs, path = fsspec.core.url_to_fs(url)
    content = fs.cat_file(path)
    fs.pipe_file(path, bytes([content[0] ^ 1]) + content[1:])


def test_ls_has_a_line_for_each_checkpoint_and_names_what_was_not_finished(
    raystack: Raystack, run_url: str, save: Save
) -> None:
    checkpoints = f"{run_url}/checkpoints"
    save(checkpoints, 10, loss=0.25)
    save(checkpoints, 20)
    fs, path = fsspec.core.url_to_fs(f"{checkpoints}/step-0000000020/manifest.json")
    fs.rm_file(path)
    for url, steps in (
        (run_url, [10, 20]),
        (f"{checkpoints}/", [10, 20]),
        (f"{checkpoints}/step-0000000010", [10]),
    ):
        done = raystack("ls", url, "--json")
        assert done.returncode == 0, done.stderr
        rows = json.loads(done.stdout)
        assert [row["step"] for row in rows] == steps
        assert rows[0] == {
            "step": 10,
            "url": f"{checkpoints}/step-0000000010",
            "samples": 80,
            "epoch": 0.8,
            "workers": 2,
            "strategy": "ddp",
            "bytes": 2 * 2048 + 5 + 2,
            "metrics": {"eval/loss": 0.25},
            "weights": False,
            "state": "ok",
            "problems": [],
        }
    table = raystack("ls", run_url)
    assert table.stdout.splitlines() == [
        "step  state        samples  epoch  workers  strategy  size     weights  metrics",
        "10    ok           80       0.80   2        ddp       4.0 KiB  no       eval/loss 0.25",
        "20    no manifest  -        -      -        -         -        -        -",
    ]
    assert (
        table.stderr
        == f"warning: {checkpoints}/step-0000000020: this checkpoint has no manifest: it was not finished\n"
    )


def test_verify_names_every_damaged_file_and_ends_with_5(
    raystack: Raystack, run_url: str, save: Save
) -> None:
    for step in (10, 20):
        save(f"{run_url}/checkpoints", step)
    whole = raystack("verify", run_url)
    assert (whole.returncode, whole.stderr) == (0, "")
    newest = f"{run_url}/checkpoints/step-0000000020"
    for name in ("state/a/0", "config.yaml"):
        damage(f"{newest}/{name}")
    done = raystack("verify", run_url, "--json")
    assert done.returncode == 5
    assert [row["state"] for row in json.loads(done.stdout)] == ["ok", "damaged"]
    rule = "the SHA-256 of this file is not the one in the manifest: it is damaged"
    assert done.stderr.splitlines() == [
        f"error: {newest}/{name}: {rule}" for name in ("config.yaml", "state/a/0")
    ]
    assert raystack("verify", f"{run_url}/checkpoints/step-0000000010").returncode == 0


def test_export_gives_the_newest_whole_checkpoint_weights(
    raystack: Raystack, run_url: str, save_trained: Save, tmp_path: Path
) -> None:
    store = CheckpointStore(f"{run_url}/checkpoints")
    for step in (10, 20):
        save_trained(store.url, step)
    damage(f"{store.folder(20)}/config.yaml")
    done = raystack("export", run_url)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{store.folder(10)}/model\n"
    assert f"warning: {store.folder(20)}/config.yaml: the SHA-256" in done.stderr
    assert [row["weights"] for row in json.loads(raystack("ls", run_url, "--json").stdout)] == [True, False]
    assert raystack("export", store.folder(10), "--out", str(tmp_path / "out")).returncode == 0
    _, model, card = read_model(tmp_path / "out")
    assert card.step == 10
    assert model.get_parameter("head.weight").shape == (5, 3)
    refused = raystack("export", store.folder(20))
    assert refused.returncode == 5
    assert refused.stderr.startswith(f"error: {store.folder(20)}/config.yaml: the SHA-256")


def test_a_place_without_checkpoints_is_told(raystack: Raystack, tmp_path: Path) -> None:
    done = raystack("ls", str(tmp_path))
    assert done.returncode == 4
    assert done.stderr.startswith(f"error: {tmp_path}: there is no checkpoint here; give a run's folder")
    assert raystack("ls", str(tmp_path / "step-0000000010")).returncode == 4


def test_listing_and_verifying_import_nothing_heavy(tmp_path: Path, save: Save) -> None:
    save(str(tmp_path), 10)
    probe = """
import json, sys
from raystack.cli.main import main

try: main(sys.argv[1:])
except SystemExit: pass
print(json.dumps(sorted(sys.modules)))
"""
    heavy = {"ray", "torch", "mlflow", "deepspeed", "numpy"}
    for arguments, also in (
        (["--help"], {"pydantic", "rich", "fsspec"}),
        (["ls", str(tmp_path)], set()),
        (["verify", str(tmp_path)], set()),
    ):
        command = [sys.executable, "-c", probe, "checkpoint", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        imported = {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
        assert imported & (heavy | also) == set()
