"""`raystack serve` that is told to end, or killed: its ports are free, and nothing of it is left."""

import os
import signal
import socket
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest
from driver import TINY
from processes import Command
from test_serving import write
from test_signals import marked, send

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SOON_S = 60.0
AFTER_S = 150.0
"""Until then the kernel and Ray have ended what a killed command has started: an agent of Ray's that has just
started looks for its raylet for half a minute, and for its GCS for a whole one.
"""


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    "kind",
    [
        "TERM group",
        "KILL driver",
        *(pytest.param(kind, marks=pytest.mark.long) for kind in ("INT group", "TERM driver", "TERM all")),
    ],
)
def test_the_ports_are_free_when_the_command_has_ended(kind: str, tmp_path: Path) -> None:
    name, whom = kind.split()
    http, grpc = free_ports()
    mark = f"RAYSTACK_TEST_MARK={uuid4().hex}"
    key, _, value = mark.partition("=")
    overrides = [f"serving.port={http}", f"serving.grpc_port={grpc}", "serving.name=counter"]
    overrides += [f"serving.model={write(tmp_path)}"]
    run = Command(
        [sys.executable, "-m", "raystack.serve", str(TINY), *overrides],
        {**os.environ, "RAYSTACK_STORAGE": str(tmp_path / "storage"), key: value},
    )
    run.until("serving until Ctrl-C")
    assert listens(http)
    assert listens(grpc)
    told = time.monotonic()
    send(run.process.pid, getattr(signal, f"SIG{name}"), whom, mark)
    run.wait()
    assert time.monotonic() - told < SOON_S, run.output
    if name != "KILL":
        assert not listens(http)
        assert not listens(grpc)
    deadline = time.monotonic() + AFTER_S
    while (left := marked(mark)) or listens(http) or listens(grpc):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert "Traceback" not in run.output, run.output
