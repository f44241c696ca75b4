"""What a driver does with the versions beside a model, on a Ray where Serve runs. All may be done twice."""

import logging
import time
from collections.abc import Callable
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve import RunTarget
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.schema import ApplicationStatus

from raystack.errors import Problem, ServingError
from raystack.plan import ServePlan
from raystack.plan.serving import SERVER
from raystack.plan.split import model_of
from raystack.serving import update
from raystack.serving.applications import delete, silent, wait_for_resources, wait_until_running
from raystack.serving.several.app import bind_gateway
from raystack.serving.split.seen import Seen
from raystack.serving.startup import first_line

ASKED_S = 1.0
"""Seconds between two questions whether versions that load are wanted."""
SEEN_S = 5.0
"""Seconds in which the replicas have to tell what they have seen."""

logger = logging.getLogger(__name__)


class AbsentError(Exception):
    """The model is not served on this cluster now."""


class UnwantedError(Exception):
    """The versions that are being loaded are not wanted any more."""


def add(plan: ServePlan, name: str, wanted: Callable[[], bool] = lambda: True) -> bool:
    """Start the applications of the versions beside a model that do not run, and wait until all do.

    Raises ServingError with the reason if one cannot be loaded; then it is deleted. What is served stays.
    Raises AbsentError if the model is not served.
    `wanted` is asked every second; those that it says no to are deleted, and False is returned.
    """
    asking = _Asking(wanted)
    with silent():
        there = {each: found.status for each, found in serve.status().applications.items()}
        if name not in there:
            raise _absent(name)  # Serve would be started for the others alone, and with other settings
        up = (ApplicationStatus.RUNNING, ApplicationStatus.DEPLOYING)
        new = {each: own for each, own in _of(plan, name).beside.items() if there.get(each) not in up}
        if new:
            try:
                wait_for_resources(_of(plan, name), asking)
            except UnwantedError:
                return False
            targets = [
                RunTarget(update.bound(own), name=each, route_prefix=None) for each, own in new.items()
            ]
            serve.run_many(targets, wait_for_applications_running=False)
        try:
            for each, own in _of(plan, name).beside.items():
                wait_until_running(plan, each, own.model, asking)
        except BaseException as error:
            for each in new:
                serve.delete(each, _blocking=False)
            if isinstance(error, UnwantedError):
                return False
            raise
        return True


def steer(plan: ServePlan, name: str) -> None:
    """Give each version the share of the plan, in all replicas of the model that is served.

    Raises ServingError if a version does not answer or does not fit; then the shares stay as they were.
    Raises AbsentError if the model is not served, unless the plan has no shares.
    """
    with silent():
        model = _of(plan, name)
        if model.serving.split is not None or name in serve.status().applications:
            _update(model)


def take_over(plan: ServePlan, name: str) -> None:
    """Put the plan's version, with the plan's split, in the place of the one that is served.

    Raises ServingError if a replica cannot load it; then all stays as it was. Raises AbsentError if the model
    is not served.
    """
    with silent():
        _update(_of(plan, name))
        if plan.several:  # the server tells the versions of its models
            target = RunTarget(bind_gateway(plan.serving, plan.tracking), name=SERVER, route_prefix="/")
            serve.run_many([target], wait_for_applications_running=False)
            wait_until_running(plan, SERVER, "serve")


def remove(plan: ServePlan, name: str) -> None:
    """Delete the applications of versions that are not beside the model in the plan, after their requests."""
    with silent():
        staying = _of(plan, name).beside
        there = serve.status().applications
        delete([each for each in there if model_of(each) == name and each not in staying])


def seen(name: str) -> list[Seen]:
    """Return the counters of each replica of a model, by version.

    A replica that is lost, or does not answer in time, is left out. Raises ServingError if none of them
    answers, AbsentError if the model is not served.
    """
    with silent():
        try:
            if name not in serve.status().applications:
                raise _absent(name)
            response = serve.get_app_handle(name).broadcast("seen")
            answers: list[Any] = response.results(timeout_s=SEEN_S, return_exceptions=True)
        except DeploymentUnavailableError:
            return []  # it has no replica now
        except (TimeoutError, RayError, RayServeException) as error:
            answers = [error]
    told = [answer for answer in answers if not isinstance(answer, BaseException)]
    if answers and not told:
        reason = first_line(str(answers[0]) or type(answers[0]).__name__)
        rule = f"none of its replicas tells what it has seen: {reason}"
        raise ServingError(Problem(f"model '{name}'", rule=rule))
    return [Seen(*each) for answer in told for each in answer]


class _Asking:
    """Asks every second whether versions are wanted, and raises UnwantedError once they are not."""

    def __init__(self, wanted: Callable[[], bool]) -> None:
        self._wanted, self._at = wanted, time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._at < ASKED_S:
            return
        if not self._wanted():
            raise UnwantedError
        self._at = time.monotonic()


def _of(plan: ServePlan, name: str) -> ServePlan:
    found = next((model for model in plan.models if model.name == name), None)
    if found is None:
        rule = f"is none of the models that are served: {', '.join(model.name for model in plan.models)}"
        raise ServingError(Problem(f"model '{name}'", rule=rule))
    return found


def _absent(name: str) -> AbsentError:
    return AbsentError(f"model '{name}' is not served")


def _update(model: ServePlan) -> None:
    if model.name not in serve.status().applications:
        raise _absent(model.name)
    if not update.changes(model):
        return
    update.prepare(model)
    target = RunTarget(update.bound(model), name=model.name, route_prefix=model.route)
    serve.run_many([target], wait_for_applications_running=False)
    wait_until_running(model, model.name, model.model)
