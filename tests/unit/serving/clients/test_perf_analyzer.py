"""Triton's own load generator asks raystack. tritonclient 2.41 has it; it needs libb64 and CUDA's runtime."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.serving.clients.both import Both, a_server, serving, write_mlp

pytestmark = pytest.mark.long
PROGRAM = Path(sys.executable).with_name("perf_analyzer")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    try:
        starts = subprocess.run([PROGRAM, "--version"], capture_output=True, timeout=60).returncode == 0
    except OSError:
        starts = False
    if not starts:
        pytest.skip("there is no perf_analyzer, or a library of its own is missing")
    with serving(a_server(write_mlp(tmp_path_factory.mktemp("mlp")))) as both:
        yield both


@pytest.mark.parametrize(
    "options",
    [
        ["-i", "http"],
        ["-i", "http", "--input-tensor-format=json", "--output-tensor-format=json"],
        ["-i", "http", "--async", "-b", "4"],
        ["-i", "grpc"],
        ["-i", "grpc", "--async", "-b", "4"],
        ["-i", "grpc", "--streaming", "--async"],
    ],
    ids=" ".join,
)
def test_it_measures_and_nothing_fails(both: Both, options: list[str], tmp_path: Path) -> None:
    address = both.web.address if "http" in options else both.grpc
    command = [
        str(PROGRAM), "-m", "mlp", "-u", address, *options, "--shared-memory=none",
        "--measurement-mode=count_windows", "--measurement-request-count=50", "--concurrency-range=2",
        "--stability-percentage=999", "--max-trials=3", "--max-threads=2", "-f", str(tmp_path / "report.csv"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Throughput" in done.stdout
    assert "Failed" not in done.stdout + done.stderr
    assert (tmp_path / "report.csv").read_text().startswith("Concurrency,Inferences/Second")
