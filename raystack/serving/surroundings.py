"""The environment of Serve's processes where raystack starts Serve: HAProxy's files, and ports that no other
server takes. Ray is not imported for it.

What the user has set takes precedence.
"""

import os
import socket
import stat
import tempfile
from pathlib import Path

from raystack.config.serving import Serving
from raystack.plan import serving as planned
from raystack.ray_internals import haproxy, variables

FIRST_PORT, RANGE, RANGES = 20000, 500, 20
"""Ports of replicas: each server has a range of its own below those that the kernel hands out."""


def environment(serving: Serving, *, alone: bool) -> dict[str, str]:
    """Return the environment of Serve's controller, which enables HAProxy if it has a binary here.

    `alone`: this machine is all of the cluster, so that HAProxy can be started by what is written here.
    """
    binary = haproxy.find()
    if binary is None:
        return {}
    # In Ray's own folder, which is the same for all users, a second user of the machine could not serve.
    own = _own_folder()
    first = FIRST_PORT + serving.port % RANGES * RANGE
    wanted = {
        **planned.environment(serving),
        **{name: f"{own}{file}" for name, file in variables.SERVE_HAPROXY_FILES.items()},
        **{name: str(first + place) for name, place in variables.SERVE_REPLICA_PORTS.items()},
    }
    if not alone:
        wanted |= {name: str(_any_free_port()) for name in variables.SERVE_HAPROXY_PORTS}
    asked = (*variables.SERVE_HAPROXY_PORTS, variables.SERVE_HAPROXY_LOG, *wanted)
    wanted |= {name: os.environ[name] for name in asked if name in os.environ}
    if alone:
        launcher = own / f"haproxy-{serving.port}"
        tls = serving.tls
        files = None if tls is None else haproxy.Tls(tls.certificate, tls.key, tls.client_ca, serving.host)
        haproxy.write_launcher(launcher, binary, serving.body_s, files)
        wanted[variables.SERVE_HAPROXY_BINARY] = str(launcher)
        wanted[haproxy.LOOPBACK] = "1"
    return wanted


def _any_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def _own_folder() -> Path:
    """Return a folder that is closed to others, with a name that is short enough for a socket's path."""
    # HAProxy's administration socket obeys whoever can open it.
    folder = Path(f"/tmp/haproxy-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return Path(tempfile.mkdtemp(prefix="haproxy-", dir="/tmp"))
    folder.chmod(0o700)
    return folder
