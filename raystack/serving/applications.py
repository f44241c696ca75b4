"""Serve applications: waiting for them and their resources, and deleting them."""

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import ray
from ray import serve
from ray.serve.schema import ApplicationStatus

from raystack.config.serving import Multiplexed, Served
from raystack.errors import LaunchError, Problem, ServingError
from raystack.plan import ServePlan
from raystack.plan.serving import initial_replicas
from raystack.serving.startup import first_line

POLL_S = 0.1
RECOVERS_S = 60.0
"""Seconds that an application may be unhealthy: Serve replaces a replica that was lost."""


def delete(names: Sequence[str]) -> None:
    for name in names:
        serve.delete(name, _blocking=False)
    for name in names:
        serve.delete(name)


def _nothing() -> None: ...


def wait_for_resources(plan: ServePlan, meanwhile: Callable[[], None] = _nothing) -> None:
    """Wait for the replicas' resources up to `resources.wait_s`; Serve itself would wait forever.

    `meanwhile` is called again and again, and ends the wait if it raises.
    """
    counts: list[tuple[int, Served | Multiplexed]]
    counts = [
        (initial_replicas(model.serving), model.serving) for model in (*plan.beside.values(), *plan.models)
    ]
    if plan.serving.multiplexed is not None:
        counts.append((plan.serving.multiplexed.replicas, plan.serving.multiplexed))
    needed = {
        "CPU": sum(count * serving.cpus_per_replica for count, serving in counts),
        "GPU": sum(count * serving.gpus_per_replica for count, serving in counts),
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
                    got=f"{sum(count for count, _ in counts)} replicas that need {needed[name]:g}",
                    remedy=f"ask for fewer, or set serving.{name.lower()}s_per_replica lower",
                )
            )
        meanwhile()
        time.sleep(POLL_S)


def wait_until_running(
    plan: ServePlan, name: str, model: str, meanwhile: Callable[[], None] = _nothing
) -> None:
    """Wait for the replicas of an application without a limit for loading, but with one for resources.

    `meanwhile` is called again and again, and ends the wait if it raises.
    """
    until = time.monotonic() + plan.config.resources.wait_s
    healthy_at = time.monotonic()
    while True:
        application = serve.status().applications.get(name)
        if application is None:
            raise ServingError(Problem(model, rule="the deployment was deleted while it was waited for"))
        if application.status == ApplicationStatus.RUNNING:
            return
        if application.status != ApplicationStatus.UNHEALTHY:
            healthy_at = time.monotonic()
        stays_so = time.monotonic() - healthy_at > RECOVERS_S
        if application.status == ApplicationStatus.DEPLOY_FAILED or stays_so:
            messages = [
                application.message,
                *(deployment.message for deployment in application.deployments.values()),
            ]
            raise ServingError(_reason(model, "\n".join(messages)))
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
        meanwhile()
        time.sleep(POLL_S)


def _reason(model: str, message: str) -> Problem:
    """Extract the replica's own error from Serve's message."""
    # Serve quotes it as one traceback among others.
    own = re.findall(r"^\s*raystack\.errors\.\w+: (.+)$", message, re.MULTILINE)
    others = re.findall(r"^\s*((?!ray\.)[\w.]*(?:Error|Exception): .+)$", message, re.MULTILINE)
    reason = own[0] if own else others[-1] if others else first_line(message)
    return Problem(model, rule=f"cannot be served: {reason.strip()}")


@contextmanager
def silent() -> Iterator[None]:
    """Keep Serve's progress messages, which its log files have as well, off the terminal."""
    logger = logging.getLogger("ray.serve")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
