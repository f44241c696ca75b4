"""A served model that is to become another: every replica loads it beside what answers, and only then does
Serve hear of it.

Serve's desired state is changed last. So a version that cannot be loaded leaves no trace: what is served
answers on, and replicas that start later load it too.
"""

from collections.abc import Iterable

import ray
from ray import serve
from ray.serve import Application

from raystack.errors import Problem, ServingError
from raystack.plan import ServePlan
from raystack.plan.serving import DEPLOYMENT, changeable
from raystack.ray_internals import serve as internals
from raystack.serving.app import bind
from raystack.serving.startup import first_line


def changes(plan: ServePlan) -> bool:
    """Whether the plan asks the replicas that are served for something else than they have."""
    given = internals.user_config(plan.name, DEPLOYMENT)
    return bool(given != changeable(plan.serving))


def prepare(plan: ServePlan) -> str | None:
    """Have every replica load the plan's version; return its name.

    Where there is no replica, one is started, with the version that is served. Raises ServingError with a
    replica's reason if one cannot load it, and what is served stays.
    """
    handle = serve.get_app_handle(plan.name)
    wanted = changeable(plan.serving)
    done = False
    try:
        if internals.has_replica(serve.status().applications[plan.name]):
            outcomes = handle.broadcast("prepare", wanted).results(return_exceptions=True)
        else:
            outcomes = [handle.prepare.remote(wanted).result()]
        version = _version(plan, outcomes)
        done = True
        return version
    finally:
        if not done:
            discard([plan.name])


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


def discard(names: Iterable[str]) -> None:
    """Have the replicas of applications let go of what they have prepared."""
    for name in names:
        serve.get_app_handle(name).broadcast("discard").results(return_exceptions=True)
