"""The process of a rollout: a detached actor on the cluster, which Ray starts again if it is lost."""

import logging
import threading
import time
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from raystack import interrupts
from raystack.errors import LaunchError, Problem
from raystack.plan.rollout import plan_rollout
from raystack.ray_internals import variables
from raystack.rollout import prometheus
from raystack.rollout.control import Control, Outside
from raystack.rollout.promotion import move_alias, record_back
from raystack.rollout.store import RolloutStore
from raystack.rollout.traffic import ServeTraffic

NAMESPACE = "raystack"
OPTIONS: dict[str, Any] = {
    "lifetime": "detached",
    "max_restarts": -1,
    "max_task_retries": 3,
    "num_cpus": 0,
    # On a Ray that was started for a server all processes have the variables of its replicas.
    "runtime_env": {"env_vars": {variables.SERVE_SEPARATE_ROUTER: "1"}},
}
UP_S, POLL_S = 60.0, 0.25

logger = logging.getLogger(__name__)


def actor_name(name: str) -> str:
    """Return the name of the actor for a model, so that it has one only."""
    return f"raystack-rollout-{name}"


class Controller:
    """Goes on with a rollout in a thread, from its start on, and ends the actor after it."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        interrupts.start_deaf(self._run, "raystack-rollout")

    def folder(self) -> str:
        """Return the folder of the rollout."""
        return self._folder

    def _run(self) -> None:
        try:
            follow(self._folder, threading.Event())
        except Exception:
            logger.exception("the rollout in %s cannot go on", self._folder)
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


def follow(folder: str, stop: threading.Event) -> None:
    """Go on with a rollout until it is over, or `stop` is set."""
    store = RolloutStore(folder)
    plan = plan_rollout(store.config())
    control = Control(plan, store, Outside(ServeTraffic(), prometheus.ask, move_alias, record_back))
    state = control.begin()
    while not state.over and not stop.is_set():
        try:
            state = control.tick()
        except Exception as error:  # a storage that is away; nothing is lost
            logger.warning("an interval is left out: %s", error)
        stop.wait(plan.analysis.every_s)


def controller(name: str, folder: str) -> None:
    """See to it that the rollout in `folder` has its process. Raises LaunchError if it does not come up."""
    until = time.monotonic() + UP_S
    while time.monotonic() < until:
        handle: Any = (
            ray.remote(Controller)
            .options(name=actor_name(name), namespace=NAMESPACE, get_if_exists=True, **OPTIONS)
            .remote(folder)
        )
        try:
            if ray.get(handle.folder.remote(), timeout=UP_S) == folder:
                return
            ray.kill(handle)  # of one that is over
        except (RayActorError, GetTimeoutError):
            time.sleep(POLL_S)  # it is about to end
    rule = f"its process did not start within {UP_S:g} s"
    raise LaunchError(
        Problem(f"rollout of {name}", rule=rule, remedy="`ray status` shows what the cluster has")
    )
