"""What the tests compare with, each in a Python of its own, because its requirements are not raystack's."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from raystack.serving.protocol.tensors import DATATYPES
from tests.unit.serving.clients.both import ECHO, MLP, VERSION

PROGRAMS = Path(__file__).parent / "programs"
UP_S = 120.0
UNKNOWN = "bfloat16"
"""The one dtype that MLServer does not have."""


class Peer(NamedTuple):
    """Where another server listens."""

    http: str
    grpc: str
    """HOST:PORT, both."""


def python(variable: str, package: str) -> str:
    """The Python that an environment variable names; without it the test is skipped."""
    found = os.environ.get(variable)
    if not found:
        pytest.skip(f"{variable} names no Python that has {package}")
    return found


@contextmanager
def mlserver(weights: Path, folder: Path) -> Iterator[Peer]:
    """Serve `mlp` and `echo` with MLServer."""
    interpreter = python("RAYSTACK_TEST_MLSERVER", "mlserver, torch and safetensors")
    http, grpc = _free_ports()
    settings = {
        "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "parallel_workers": 0, "debug": False,
        "metrics_endpoint": None,
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    for name, signature in (("mlp", MLP), ("echo", ECHO)):
        tensors = {
            side: [
                {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": list(spec.shape)}
                for spec in specs
                if spec.dtype != UNKNOWN
            ]
            for side, specs in (("inputs", signature.inputs), ("outputs", signature.outputs))
        }
        runtime = f"mlserver_models.{name.capitalize()}"
        model = {"name": name, "implementation": runtime, "parameters": {"version": VERSION}, **tensors}
        (folder / name).mkdir()
        (folder / name / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    variables = {**os.environ, "WEIGHTS": str(weights), "PYTHONPATH": str(PROGRAMS)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [interpreter, "-m", "mlserver.cli.main", "start", str(folder)],
            env=variables,
            stdout=log,
            stderr=log,
        )
    try:
        _until_ready(f"http://127.0.0.1:{http}/v2/health/ready", process, folder / "log")
        yield Peer(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


def kserve(url: str, grpc: str) -> Any:
    """What a server answers KServe's client, by transport and question."""
    interpreter = python("RAYSTACK_TEST_KSERVE", "kserve")
    done = subprocess.run(
        [interpreter, str(PROGRAMS / "kserve_client.py"), url, grpc],
        capture_output=True,
        text=True,
        timeout=UP_S,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def curl(url: str, body: bytes | None = None, *options: str) -> tuple[int, bytes]:
    """Status and body, as curl has them."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    data = [] if body is None else ["--data-binary", "@-", "-H", "Content-Type: application/json"]
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "60", "-w", "\n%{http_code}", *data, *options, url],
        input=body,
        capture_output=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    answer, _, status = done.stdout.rpartition(b"\n")
    return int(status), answer


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + UP_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        else:
            return
