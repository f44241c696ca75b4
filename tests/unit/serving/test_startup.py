"""What Serve's processes start with."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from raystack.config.serving import Serving
from raystack.ray_internals import serve as internals
from raystack.ray_internals import variables
from raystack.serving.surroundings import environment

pytestmark = pytest.mark.skipif(internals.haproxy() is None, reason="there is no HAProxy for this machine")

PER_NODE = "/" + "0" * 56
"""Serve puts a node's id between folder and file."""


def test_the_files_of_haproxy_are_this_users_and_its_sockets_have_short_names() -> None:
    files = {name: path for name, path in environment(Serving(), alone=True).items() if path.startswith("/")}
    assert {name.removeprefix("RAY_SERVE_HAPROXY_") for name in files} == {
        "BINARY_PATH",
        "CONFIG_FILE_LOC",
        "SOCKET_PATH",
        "SERVER_STATE_BASE",
        "SERVER_STATE_FILE",
        "METRICS_SOCKET_PATH",
    }
    folder = Path(files["RAY_SERVE_HAPROXY_BINARY_PATH"]).parent
    assert all(Path(path).is_relative_to(folder) for path in files.values())
    mode = folder.stat()
    assert (mode.st_uid, stat.S_IMODE(mode.st_mode)) == (os.getuid(), 0o700)
    longest = max(len(path) for name, path in files.items() if "SOCKET" in name)
    assert longest - len(str(os.getuid())) + len("4294967295") + len(PER_NODE) <= 107


def test_two_servers_of_a_machine_have_no_port_in_common() -> None:
    one, other = (
        {int(environment(Serving(port=port), alone=True)[name]) for name in NAMES} for port in (8000, 8001)
    )
    assert len(one) == len(other) == len(NAMES)
    assert max(one) < min(other) or max(other) < min(one)


NAMES = tuple(variables.SERVE_REPLICA_PORTS)


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"RAY_SERVE_HAPROXY_STATS_PORT": "18404", "RAY_SERVE_HAPROXY_RETRIES": "1", NAMES[0]: "31000"}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    found = environment(Serving(), alone=True)
    assert {name: found[name] for name in own} == own
    assert "RAY_SERVE_HAPROXY_METRICS_PORT" not in found


def test_messages_over_grpc_have_the_limit_of_bodies() -> None:
    found = environment(Serving(body_mb=5.0), alone=True)
    assert found["RAY_SERVE_GRPC_MAX_MESSAGE_SIZE"] == "5000000"


def test_a_cluster_of_several_machines_starts_its_own_binaries() -> None:
    found = environment(Serving(), alone=False)
    assert "RAY_SERVE_HAPROXY_BINARY_PATH" not in found
    assert found["RAY_SERVE_HAPROXY_STATS_PORT"] != found["RAY_SERVE_HAPROXY_METRICS_PORT"]


def test_a_deployments_driver_imports_no_torch() -> None:
    """It takes longer than Ray's start, on cores that Ray's processes could use meanwhile."""
    code = "import sys, raystack.serving.deploy; print('torch' in sys.modules, 'mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
