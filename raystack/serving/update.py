"""A served model that is to become another: every replica loads it beside what answers, and only then does
Serve hear of it.

Serve's desired state is changed last. So a version that cannot be loaded leaves no trace: what is served
answers on, and replicas that start later load it too.
"""

from collections.abc import Iterable
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from raystack.errors import Problem, ServingError
from raystack.plan import ServePlan
from raystack.plan.serving import changeable
from raystack.serving.app import bind
from raystack.serving.startup import first_line


def prepare(plan: ServePlan) -> str | None:
    """Have every replica load the plan's version; return its name.

    Raises ServingError with a replica's reason if one cannot, and what is served stays.
    """
    handle = serve.get_app_handle(plan.name)
    done = False
    try:
        outcomes = handle.broadcast("prepare", changeable(plan.serving)).results(return_exceptions=True)
        version = _version(plan, outcomes)
        done = True
        return version
    finally:
        if not done:
            _discard(handle)


def bound(plan: ServePlan) -> Application:
    """Return the application to deploy: replicas are started before others stop, where there is room."""
    serving = plan.serving
    free = ray.available_resources()
    room = free.get("CPU", 0) >= serving.cpus_per_replica and free.get("GPU", 0) >= serving.gpus_per_replica
    return bind(serving, plan.tracking, None if room else 0)


def _version(plan: ServePlan, outcomes: Iterable[object]) -> str | None:
    version = None
    for outcome in outcomes:
        match outcome:
            case [None, str(reason)]:
                rule = f"cannot be served: {reason}"
                raise ServingError(Problem(plan.model, rule=rule, remedy="what was served before answers on"))
            case [str(name), _]:
                version = name
            case ray.exceptions.RayActorError():
                continue  # it is gone; the one that takes its place loads what Serve says then
            case error:
                rule = f"a replica failed while it loaded the model: {first_line(str(error))}"
                raise ServingError(Problem(plan.model, rule=rule, remedy="run with -v"))
    return version


def _discard(handle: DeploymentHandle[Any]) -> None:
    """Have the replicas let go of what they have prepared."""
    handle.broadcast("discard").results(return_exceptions=True)
