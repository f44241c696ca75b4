"""Deployment of a ServePlan with Ray Serve, on a Ray that is already initialised."""

import json
import logging
import math
import re
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray
from ray import serve
from ray.serve import RunTarget
from ray.serve.schema import ApplicationStatus

from raystack.errors import LaunchError, Problem, RaystackError, ServingError
from raystack.outcome import Outcome
from raystack.plan import ServePlan
from raystack.serving import startup, update
from raystack.serving.grpc.probe import is_ready
from raystack.serving.llm.check import example
from raystack.serving.pin import version_of
from raystack.serving.startup import first_line, on_head_node

POLL_S = 0.1
EXAMPLE_SIZE = 256
"""Maximum number of values in the example request shown after a deployment."""
ANSWER_S = 60.0
"""Seconds that a deployment may take to answer over HTTP after Serve reports it running."""


def deploy(plan: ServePlan, inherited: Mapping[str, str] | None = None) -> Outcome:
    """Serve the plan's pinned model and wait until it answers. Replace a deployment of the same name.

    `inherited` is Serve's environment if the processes of this Ray have it.

    A model that is served already is updated only if its replicas can load the new version, which they do
    beside the old one; it answers until then. Raises LaunchError for errors of the environment (port,
    resources), ServingError with the replica's reason for errors of the model, ConfigError if there is no
    such model.
    """
    assert "@" not in plan.model, "replicas that follow an alias could serve two versions"
    with _silent():
        running = _running(plan.name)
        _wait_for_resources(plan)
        startup.start(plan, inherited or {})
        prepares = running == ApplicationStatus.RUNNING and plan.serving.kind == "model"
        version = update.prepare(plan) if prepares else None
        serve.run_many(
            [RunTarget(update.bound(plan), name=plan.name, route_prefix="/")],
            wait_for_applications_running=False,
        )
        try:
            _wait_until_running(plan)
        except RaystackError:
            if running is None:
                serve.delete(plan.name, _blocking=False)
            raise
        _wait_until_ready(plan, version)
    version = plan.model if version_of(plan.model) else None
    grpc = {} if plan.grpc_address is None else {"grpc": plan.grpc_address}
    return Outcome(model_version=version, links={"url": plan.url, **grpc, "try": _try(plan)})


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


def _running(name: str) -> ApplicationStatus | None:
    """Return the status of what is served under the name. Raise LaunchError if another model is served."""
    applications = serve.status().applications
    others = [other for other in applications if other != name]
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
    return applications[name].status if name in applications else None


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


def _wait_until_ready(plan: ServePlan, version: str | None) -> None:
    """Wait until the version answers over HTTP, or any if it is None, and then until gRPC does.

    Serve reports RUNNING before its proxy routes to replicas.
    """
    if not on_head_node():
        return
    url = f"{plan.url if version is None else f'{plan.url}/versions/{version}'}/ready"
    if plan.serving.kind == "llm":
        url = f"{plan.url}/models"
    until = time.monotonic() + ANSWER_S
    while (reason := _unready(url, plan.grpc_address)) is not None:
        if time.monotonic() >= until:
            rule = f"is deployed and does not answer: {reason}"
            raise ServingError(Problem(url, rule=rule, remedy="run with -v"))
        time.sleep(POLL_S)


def _unready(url: str, grpc_address: str | None) -> str | None:
    """Return why a model does not answer; None if it does."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            pass
    except (urllib.error.URLError, OSError) as error:
        return str(error)
    if grpc_address is not None and not is_ready(grpc_address):
        return f"{grpc_address} does not answer over gRPC"
    return None


_ZEROS = {"BOOL": False, "BYTES": ""}
"""What is no number in the JSON of a sample of zeros."""


def _try(plan: ServePlan) -> str:
    if plan.serving.kind == "model":
        return _curl(plan.url)
    if not on_head_node():
        return f"curl -s {plan.url}/models"
    return example(plan.serving, plan.tracking, plan.url)


def _curl(url: str) -> str:
    """Return a curl command that sends one sample of zeros, or only gets the metadata if that is too long."""
    if not on_head_node():
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
            "data": [_ZEROS.get(tensor["datatype"], 0)] * math.prod(shape),
        }
        for tensor, shape in zip(described, shapes, strict=True)
    ]
    return f"curl -s {url}/infer -d {shlex.quote(json.dumps({'inputs': tensors}))}"


def _reason(model: str, message: str) -> Problem:
    """Extract the replica's own error from Serve's message."""
    # Serve quotes it as one traceback among others.
    own = re.findall(r"^\s*raystack\.errors\.\w+: (.+)$", message, re.MULTILINE)
    others = re.findall(r"^\s*((?!ray\.)[\w.]*(?:Error|Exception): .+)$", message, re.MULTILINE)
    reason = own[0] if own else others[-1] if others else first_line(message)
    return Problem(model, rule=f"cannot be served: {reason.strip()}")


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
