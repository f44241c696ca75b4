"""Ray Serve's start for a plan: HAProxy in front of the replicas, on ports that no other server takes.

What the user has set in the environment takes precedence.
"""

import errno
import os
import socket
import stat
import tempfile
from pathlib import Path

import ray
from ray import serve

from raystack.config.serving import Serving
from raystack.errors import LaunchError, Problem
from raystack.plan import ServePlan
from raystack.plan import serving as planned
from raystack.ray_internals import haproxy, variables
from raystack.ray_internals import serve as internals
from raystack.ray_internals.core import HEAD
from raystack.serving.app import QUIET

FIRST_PORT, RANGE, RANGES = 20000, 500, 20
"""Ports of replicas: each server has a range of its own below those that the kernel hands out."""


def start(plan: ServePlan) -> None:
    """Start Serve where the plan says, unless it runs there. Raises LaunchError where it cannot."""
    serving = plan.serving
    client = internals.client()  # Serve exposes its address nowhere else
    if client is not None:
        _check_running("port", client.http_config.port, serving.port)
        if serving.grpc_port is not None:
            _check_running("grpc_port", internals.grpc_port(client), serving.grpc_port)
        return
    if on_head_node():
        _check_free("port", serving.host, serving.port)
        if serving.grpc_port is not None:
            _check_free("grpc_port", serving.host, serving.grpc_port)
    settings = environment(serving, alone=_alone())
    # Serve reads the variables at import in its controller; proxies and replicas inherit them.
    try:
        serve.start(
            http_options={"host": serving.host, "port": serving.port},
            grpc_options=plan.grpc,
            logging_config=QUIET,
            controller_options={"runtime_env": {"env_vars": settings}},
        )
    except (TimeoutError, RuntimeError, ray.exceptions.RayError) as error:
        raise LaunchError(
            Problem("serve", rule=f"Ray Serve did not start: {first_line(str(error))}", remedy="run with -v")
        ) from error


def environment(serving: Serving, *, alone: bool) -> dict[str, str]:
    """Return the environment of Serve's controller, which enables HAProxy if it has a binary here.

    `alone`: this machine is all of the cluster, so that HAProxy can be started by what is written here.
    """
    binary = internals.haproxy()
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
    if alone:
        launcher = own / f"haproxy-{serving.port}"
        haproxy.write_launcher(launcher, binary, serving.body_s)
        wanted[variables.SERVE_HAPROXY_BINARY] = str(launcher)
    else:
        wanted |= {name: str(_any_free_port()) for name in variables.SERVE_HAPROXY_PORTS}
    asked = (*variables.SERVE_HAPROXY_PORTS, variables.SERVE_HAPROXY_LOG)
    wanted |= {name: os.environ[name] for name in asked if name in os.environ}
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def on_head_node() -> bool:
    """Return whether this process runs on the head node, where Serve's controller and a proxy run."""
    here = ray.get_runtime_context().get_node_id()
    return any(node["NodeID"] == here and HEAD in node["Resources"] for node in ray.nodes())


def first_line(message: str) -> str:
    """Return the first line that says something."""
    return next((line.strip() for line in message.splitlines() if line.strip()), "no reason was given")


def _alone() -> bool:
    return on_head_node() and sum(node["Alive"] for node in ray.nodes()) == 1


def _check_running(key: str, running: int | None, asked: int) -> None:
    if running != asked:
        listens = "does not listen for gRPC" if running is None else f"listens on port {running}"
        wanted = "null" if running is None else str(running)
        raise LaunchError(
            Problem(
                f"serving.{key}",
                rule=f"Serve already runs on this cluster, and {listens}",
                got=str(asked),
                remedy=f"set serving.{key}={wanted}, or stop Serve with `serve shutdown`",
            )
        )


def _check_free(key: str, host: str, port: int) -> None:
    """Raise LaunchError if the port is in use, or if the host cannot be listened on."""
    # HAProxy would silently share a port that is in use, so the check cannot be left to it.
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            where = f"{host}:{port}"
            if error.errno == errno.EADDRINUSE:
                remedy = f"set serving.{key} to a free one"
                raise LaunchError(
                    Problem(f"serving.{key}", rule="the port is in use", got=where, remedy=remedy)
                ) from None
            rule = f"cannot be listened on: {error.strerror}"
            raise LaunchError(Problem("serving.host", rule=rule, got=where)) from error


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
