"""A cluster that `ray start` made, as somebody else's: with a token, on ports of its own, and without root's
privileges.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from processes import stop

TOKEN = "2b9e5d4c1f0a4a6e8d7c6b5a49382716"
PORTS = (
    "port",
    "dashboard-port",
    "ray-client-server-port",
    "dashboard-agent-listen-port",
    "metrics-export-port",
)
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
    head: "subprocess.Popen[bytes]"
    """Its process, which leads a session with all others."""


@contextmanager
def started(environment: Mapping[str, str] | None = None) -> Iterator[Started]:
    """For the time of the block. Its workers run at niceness 15, as on every cluster that `ray start` made.

    `environment`: of whoever types the command; left out, this process's with a token of the cluster's own.
    """
    with tempfile.TemporaryDirectory(
        prefix="ray", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:  # a socket's path has to be short
        ports = dict(zip(PORTS, _free(len(PORTS)), strict=True))
        typed = dict(environment or {**ambient(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN})
        options = [
            "--num-cpus=2",
            "--disable-usage-stats",
            f"--temp-dir={folder}",
            "--node-ip-address=127.0.0.1",
        ]
        command = [
            *ORDINARY,
            str(Path(sys.executable).with_name("ray")),
            "start",
            "--head",
            "--block",
            *options,
        ]
        command += [f"--{name}={port}" for name, port in ports.items()]
        quiet = subprocess.DEVNULL
        head = subprocess.Popen(command, env=typed, stdout=quiet, stderr=quiet, start_new_session=True)
        try:
            dashboard = f"http://127.0.0.1:{ports['dashboard-port']}"
            until(lambda: answers(f"{dashboard}/api/version"), 60, head)
            yield Started(f"127.0.0.1:{ports['port']}", dashboard, typed, head)
        finally:
            stop(head)  # with actors left it may drain longer than anybody waits


def ambient() -> dict[str, str]:
    """The environment of this process without what it says to Ray."""
    return {
        "NO_PROXY": "127.0.0.1",
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
    }


def until(what: Callable[[], bool], longest_s: float, head: "subprocess.Popen[bytes] | None" = None) -> None:
    """Wait for it, but no longer, nor after the end of what brings it about."""
    deadline = time.monotonic() + longest_s
    while not what():
        assert head is None or head.poll() is None, f"it has ended with {head.returncode}"
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


def answers(url: str) -> bool:
    """Whether anybody does, if only that a token is asked for."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
