"""Follow an alias: what it points to is read from MLflow, at once when the webhook wakes, else by polling.

The version that was begun last is remembered on the storage, so that neither a second delivery nor a new
process begins it again. The very first look begins nothing: that version counts as served.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Protocol

from raystack import registry
from raystack.config.secret import resolve
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, LaunchError, Problem, RaystackError, ServingError
from raystack.plan.follow import FollowPlan
from raystack.registry.command import RejectedError, UnavailableError
from raystack.registry.credentials import authorization
from raystack.rollout.follow.deliveries import Deliveries
from raystack.rollout.follow.webhook import listening
from raystack.storage import Storage

FILE = "followed.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Followed:
    """What was done last."""

    version: str
    """`models:/name/version` that was begun last, or is being begun."""
    done: bool = True
    """Whether it was begun; False while it is."""
    result: str = ""
    """In words."""


class Begins(Protocol):
    """What rolls a version out, or serves it."""

    def __call__(self, version: str) -> str:
        """Begin with a version; return what was begun, in words. Raises RaystackError."""


class Watch:
    """One alias."""

    def __init__(
        self,
        plan: FollowPlan,
        begin: Begins,
        say: Callable[[str], None],
        find: Callable[[], str | None] | None = None,
    ) -> None:
        self._plan, self._begin, self._say = plan, begin, say
        self._find = find or (lambda: current(plan))
        self._storage = Storage(plan.folder)
        if self._storage.local:
            self._storage.make("")
        self._wake = threading.Event()
        self._told = ""
        self.followed = self._read()

    def run(self, ends: Callable[[], bool] = lambda: False) -> None:
        """Follow until the process ends, or `ends` says so."""
        while not ends():
            self._wake.clear()
            self.look()
            self._wake.wait(self._plan.follow.poll_s)

    def wake(self) -> None:
        """Have the alias be looked at now."""
        self._wake.set()

    def look(self) -> None:
        """Read the alias, and begin with its version if that is another one than the last."""
        try:
            version = self._find()
        except ServingError as error:
            self._tell_once(f"{error}; {self._plan.uri} is looked at again in {self._plan.follow.poll_s:g} s")
            return
        if version is None:
            self._tell_once(f"there is no {self._plan.uri} yet")
            return
        last = self.followed
        if last is None:
            self._keep(Followed(version, result="it was there at the first look"))
            self._say(f"{self._plan.uri} is {version}, which counts as served; the next one is rolled out")
        elif not last.done or version != last.version:
            # What is not done was cut off by the end of a process, or its cluster was away.
            if version != last.version:
                self._say(f"{self._plan.uri} has moved from {last.version} to {version}")
            self._go(version)

    def _go(self, version: str) -> None:
        if self.followed != (begun := Followed(version, done=False)):
            self._keep(begun)
        try:
            result = self._begin(version)
        except LaunchError as error:
            self._tell_once(f"{error}; it is tried again in {self._plan.follow.poll_s:g} s")
            return
        except RaystackError as error:
            result = f"not begun: {error}"
            logger.error("%s: %s", version, error)
        self._keep(Followed(version, result=result))
        self._say(f"{version}: {result}")

    def _tell_once(self, text: str) -> None:
        if text != self._told:
            self._say(text)
        self._told = text

    def _keep(self, followed: Followed) -> None:
        self._storage.write(FILE, json.dumps(asdict(followed), indent=2))
        self.followed, self._told = followed, ""

    def _read(self) -> Followed | None:
        try:
            return Followed(**json.loads(self._storage.read(FILE)))
        except (FileNotFoundError, ValueError, TypeError):
            return None


def current(plan: FollowPlan) -> str | None:
    """Return the version that the alias points to now; None without one. Raises ServingError."""
    try:
        return registry.pin(plan.uri, plan.tracking)
    except ConfigError:
        return None


@contextmanager
def woken(plan: FollowPlan, watch: Watch) -> Iterator[None]:
    """Listen to MLflow's webhook during the block, and register it there, as the plan says."""
    webhook = plan.follow.webhook
    if webhook is None:
        yield
        return
    secret = resolve(webhook.secret)
    with listening(webhook, Deliveries(secret, webhook.tolerance_s, Storage(plan.folder)), watch.wake):
        if webhook.register_as is not None:
            name = f"raystack-{plan.config.experiment.name}-{plan.model}-{plan.alias}"
            _register(plan.tracking, name, webhook.register_as, secret)
        yield


def _register(tracking: Tracking, name: str, url: str, secret: str) -> None:
    from raystack.registry.webhooks import register_webhook  # imports MLflow

    try:
        register_webhook(str(tracking.uri), authorization(tracking), name, url, secret)
    except (UnavailableError, RejectedError) as error:
        rule = f"MLflow does not take the webhook: {error}"
        remedy = "leave rollout.follow.webhook.register_as out, and add it there by hand"
        where = "rollout.follow.webhook.register_as"
        raise LaunchError(Problem(where, rule=rule, got=url, remedy=remedy)) from None
