"""A cluster that `ray start` made, as somebody else's: with a token, on ports of its own, and without root's privileges."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TOKEN = "2b9e5d4c1f0a4a6e8d7c6b5a49382716"
PORTS = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port", "metrics-export-port")
_SETPRIV = shutil.which("setpriv")
ORDINARY = (_SETPRIV, "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 and _SETPRIV else ()
"""Words before a command that take root's privileges from it; nothing for a user who has none."""


@dataclass(frozen=True)
class Started:
    """Where it is."""

    address: str
    """Of the cluster itself, `host:port`."""
    dashboard: str
    """URL."""
    environment: dict[str, str]
    """For commands that are to reach it."""


@contextmanager
def started(cpus: int = 2) -> Iterator[Started]:
    """For the time of the block. Its workers run at niceness 15, as on every cluster that `ray start` made."""
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:  # a socket's path has to be short
        ports = dict(zip(PORTS, _free(len(PORTS)), strict=True))
        ambient = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment = {**ambient, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "NO_PROXY": "127.0.0.1"}
        options = [f"--num-cpus={cpus}", "--disable-usage-stats", f"--temp-dir={folder}", "--node-ip-address=127.0.0.1"]
        command = [*ORDINARY, str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", *options]
        command += [f"--{name}={port}" for name, port in ports.items()]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as head:
            try:
                dashboard = f"http://127.0.0.1:{ports['dashboard-port']}"
                until(lambda: head.poll() is None and _answers(f"{dashboard}/api/jobs/"), 60)
                yield Started(f"127.0.0.1:{ports['port']}", dashboard, environment)
            finally:
                stop(head)


def stop(head: "subprocess.Popen[bytes]", patience_s: float = 10.0) -> None:
    """End it: SIGTERM, which no shell has made it deaf to, then SIGKILL for it and its children. With actors left it may drain long."""
    head.terminate()
    try:
        head.wait(patience_s)
    except subprocess.TimeoutExpired:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait(10)


def until(what: Callable[[], bool], longest_s: float) -> None:
    """Wait for it, but no longer."""
    deadline = time.monotonic() + longest_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _free(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _answers(url: str) -> bool:
    try:
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False
