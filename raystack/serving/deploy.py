"""Deployment of a ServePlan with Ray Serve, on a Ray that is already initialised.

If raystack starts Serve, it runs behind HAProxy and without a Python proxy: requests go from HAProxy straight
to a replica, which raises throughput more than tenfold. Variables that the user has set take precedence.
"""

import errno
import json
import logging
import math
import os
import re
import shlex
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray import serve
from ray.serve import RunTarget
from ray.serve.schema import ApplicationStatus

from raystack.errors import LaunchError, Problem, RaystackError, ServingError
from raystack.outcome import Outcome
from raystack.plan import ServePlan
from raystack.ray_internals import serve as internals
from raystack.ray_internals import variables
from raystack.ray_internals.core import HEAD
from raystack.serving.app import QUIET, bind
from raystack.serving.pin import version_of

POLL_S = 0.1
EXAMPLE_SIZE = 256
"""Maximum number of values in the example request shown after a deployment."""
ANSWER_S = 60.0
"""Seconds that a deployment may take to answer over HTTP after Serve reports it running."""


def deploy(plan: ServePlan) -> Outcome:
    """Serve the plan's pinned model and wait until it answers. Replace a deployment of the same name.

    Raises LaunchError for errors of the environment (port, resources), ServingError with the replica's reason
    for errors of the model, ConfigError if there is no such model.
    """
    assert "@" not in plan.model, "replicas that follow an alias could serve two versions"
    with _silent():
        new = _is_new(plan.name)
        _wait_for_resources(plan)
        _start_serve(plan)
        serve.run_many(
            [RunTarget(bind(plan.serving, plan.tracking), name=plan.name, route_prefix="/")],
            wait_for_applications_running=False,
        )
        try:
            _wait_until_running(plan)
        except RaystackError:
            if new:
                serve.delete(plan.name, _blocking=False)
            raise
        _wait_until_ready(plan)
    version = plan.model if version_of(plan.model) else None
    return Outcome(model_version=version, links={"url": plan.url, "try": _curl(plan.url)})


def undeploy(name: str) -> None:
    """Stop serving the model after its pending requests, if it is served.

    Without another application, Serve itself is stopped as well, which frees its port.
    """
    with _silent():
        if name not in serve.status().applications:
            return
        serve.delete(name)
        if not serve.status().applications:
            serve.shutdown()


def environment() -> dict[str, str]:
    """Return the environment of Serve's controller, which enables HAProxy if it has a binary here."""
    if not internals.has_haproxy():
        return {}
    # In Ray's own folder, which is the same for all users, a second user of the machine could not serve.
    own = f"/tmp/haproxy-{os.getuid()}"
    wanted = {
        **{name: f"{own}{file}" for name, file in variables.SERVE_HAPROXY_FILES.items()},
        variables.SERVE_HAPROXY: "1",
        variables.SERVE_THROUGHPUT: "1",
        # Seconds before a replica taken out of HAProxy's list stops. Serve's 30 suit cloud load balancers.
        variables.SERVE_DRAINING: "1",
        **{
            name: str(port if _is_free("", port) else _any_free_port())
            for name, port in variables.SERVE_HAPROXY_PORTS.items()
        },
    }
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def _is_new(name: str) -> bool:
    """Return whether the name is not served yet. Raise LaunchError if another model is."""
    others = [other for other in serve.status().applications if other != name]
    if others:
        rule = f"this cluster already serves '{others[0]}', and one model has all paths of a server"
        raise LaunchError(
            Problem(
                "serving.name",
                rule=rule,
                got=name,
                remedy=f"stop it, or replace it with serving.name={others[0]}",
            )
        )
    return name not in serve.status().applications


def _start_serve(plan: ServePlan) -> None:
    client = internals.client()  # Serve exposes its address nowhere else
    if client is not None:
        options = client.http_config
        if options.port != plan.serving.port:
            raise LaunchError(
                Problem(
                    "serving.port",
                    rule=f"Serve already runs on this cluster, and listens on port {options.port}",
                    got=str(plan.serving.port),
                    remedy=f"set serving.port={options.port}, or stop Serve with `serve shutdown`",
                )
            )
        return
    if _on_head_node() and not _is_free(plan.serving.host, plan.serving.port):
        raise LaunchError(
            Problem(
                "serving.port",
                rule="the port is in use",
                got=f"{plan.serving.host}:{plan.serving.port}",
                remedy="set serving.port to a free one",
            )
        )
    # Serve reads these variables at import in its controller; proxies and replicas inherit them.
    try:
        serve.start(
            http_options={"host": plan.serving.host, "port": plan.serving.port},
            logging_config=QUIET,
            controller_options={"runtime_env": {"env_vars": environment()}},
        )
    except (TimeoutError, RuntimeError, ray.exceptions.RayError) as error:
        raise LaunchError(
            Problem("serve", rule=f"Ray Serve did not start: {_first_line(str(error))}", remedy="run with -v")
        ) from error


def _wait_for_resources(plan: ServePlan) -> None:
    """Wait for the replicas' resources up to `resources.wait_s`; Serve itself would wait forever."""
    serving = plan.serving
    needed = {
        "CPU": serving.cpus_per_replica * serving.replicas,
        "GPU": serving.gpus_per_replica * serving.replicas,
    }
    until = time.monotonic() + plan.config.resources.wait_s
    while True:
        there = ray.cluster_resources()
        lacking = [name for name, amount in needed.items() if amount > there.get(name, 0)]
        if not lacking:
            return
        if time.monotonic() >= until:
            name = lacking[0]
            raise LaunchError(
                Problem(
                    "serving.replicas",
                    rule=f"the cluster has {there.get(name, 0):g} {name} in all",
                    got=f"{serving.replicas} replicas that need {needed[name]:g}",
                    remedy=f"ask for fewer, or set serving.{name.lower()}s_per_replica lower",
                )
            )
        time.sleep(POLL_S)


def _wait_until_running(plan: ServePlan) -> None:
    """Wait for the replicas without a limit for loading, but with one for resources."""
    until = time.monotonic() + plan.config.resources.wait_s
    while True:
        application = serve.status().applications.get(plan.name)
        if application is None:
            raise ServingError(Problem(plan.model, rule="the deployment was deleted while it was waited for"))
        if application.status == ApplicationStatus.RUNNING:
            return
        if application.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
            messages = [
                application.message,
                *(deployment.message for deployment in application.deployments.values()),
            ]
            raise ServingError(_reason(plan.model, "\n".join(messages)))
        if time.monotonic() >= until and any(
            "to be scheduled" in deployment.message for deployment in application.deployments.values()
        ):
            rule = "the cluster has the resources, and others hold them"
            raise LaunchError(
                Problem(
                    "serving.replicas",
                    rule=rule,
                    got=str(plan.serving.replicas),
                    remedy="stop what else runs, or ask for fewer",
                )
            )
        time.sleep(POLL_S)


def _wait_until_ready(plan: ServePlan) -> None:
    """Wait for an HTTP answer, because Serve reports RUNNING before its proxy routes to replicas."""
    if not _on_head_node():
        return
    until = time.monotonic() + ANSWER_S
    while True:
        try:
            with urllib.request.urlopen(f"{plan.url}/ready", timeout=5):
                return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() >= until:
                raise ServingError(
                    Problem(plan.url, rule=f"is deployed and does not answer: {error}", remedy="run with -v")
                ) from error
        time.sleep(POLL_S)


def _curl(url: str) -> str:
    """Return a curl command that sends one sample of zeros, or only gets the metadata if that is too long."""
    if not _on_head_node():
        return f"curl -s {url}"
    with urllib.request.urlopen(url, timeout=5) as response:
        described = json.load(response)["inputs"]
    shapes = [[1 if size < 0 else size for size in tensor["shape"]] for tensor in described]
    if sum(map(math.prod, shapes)) > EXAMPLE_SIZE:
        return f"curl -s {url}"
    tensors = [
        {
            "name": tensor["name"],
            "datatype": tensor["datatype"],
            "shape": shape,
            "data": [0] * math.prod(shape),
        }
        for tensor, shape in zip(described, shapes, strict=True)
    ]
    return f"curl -s {url}/infer -d {shlex.quote(json.dumps({'inputs': tensors}))}"


def _reason(model: str, message: str) -> Problem:
    """Extract the replica's own error from Serve's message."""
    # Serve quotes it as one traceback among others.
    own = re.findall(r"^\s*raystack\.errors\.\w+: (.+)$", message, re.MULTILINE)
    others = re.findall(r"^\s*((?!ray\.)[\w.]*(?:Error|Exception): .+)$", message, re.MULTILINE)
    reason = own[0] if own else others[-1] if others else _first_line(message)
    return Problem(model, rule=f"cannot be served: {reason.strip()}")


def _first_line(message: str) -> str:
    return next((line.strip() for line in message.splitlines() if line.strip()), "no reason was given")


def _on_head_node() -> bool:
    """Return whether this process runs on the head node, where Serve's controller and a proxy run."""
    here = ray.get_runtime_context().get_node_id()
    nodes = ray.nodes()
    return any(node["NodeID"] == here and HEAD in node["Resources"] for node in nodes)


def _is_free(host: str, port: int) -> bool:
    """Return whether the port is free. Raise LaunchError if the host cannot be listened on."""
    # HAProxy would silently share a port that is in use, so the check cannot be left to it.
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise LaunchError(
                Problem("serving.host", rule=f"cannot be listened on: {error.strerror}", got=f"{host}:{port}")
            ) from error
    return True


def _any_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _silent() -> Iterator[None]:
    """Keep Serve's progress messages, which its log files have as well, off the terminal."""
    logger = logging.getLogger("ray.serve")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
