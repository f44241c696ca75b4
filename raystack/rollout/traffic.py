"""What a rollout does to the service. One implementation is Ray Serve's; tests bring another."""

from collections.abc import Callable, Iterable
from typing import Protocol

from raystack.plan import ServePlan
from raystack.plan.serving import DEPLOYMENT
from raystack.rollout.counts import Seen
from raystack.serving.lineage import record


class Traffic(Protocol):
    """The service. All methods may be called again after a crash, and then change nothing more.

    They raise RaystackError for what is wrong with a version, and other errors while Serve is away or has not
    the model.
    """

    @property
    def bounds(self) -> tuple[float, ...]:
        """Bounds of the latency's counters, in seconds."""

    def add(self, plan: ServePlan, name: str, wanted: Callable[[], bool]) -> None:
        """Load the versions of the plan's split beside the one that is served.

        As soon as they are not wanted any more, those that are being loaded are let go of.
        """

    def steer(self, plan: ServePlan, name: str) -> None:
        """Give each version its share of the requests; without shares also where the model is not served."""

    def take_over(self, plan: ServePlan, name: str) -> None:
        """Put the plan's version in the place of the one that is served."""

    def remove(self, plan: ServePlan, name: str) -> None:
        """Take away the versions that the plan does not have, after their requests."""

    def served(self, name: str) -> str | None:
        """Return the reference of the version that is served; None if that is not known."""

    def seen(self, name: str) -> Iterable[Seen]:
        """Return the counters of all versions in all replicas. Raises any error if there are none now."""


class ServeTraffic:
    """Ray Serve on a Ray that is initialised."""

    def __init__(self) -> None:
        from raystack.ray_internals import serve as internals  # imports Ray, as the others do
        from raystack.serving.split import seen, steer

        self._steer, self._internals, self.bounds = steer, internals, tuple(seen.LATENCY_BOUNDS_S)

    def add(self, plan: ServePlan, name: str, wanted: Callable[[], bool]) -> None:
        """Load the versions of the plan's split, while they are wanted."""
        if self._steer.add(plan, name, wanted):
            record(plan)

    def steer(self, plan: ServePlan, name: str) -> None:
        """Give each version its share."""
        self._steer.steer(plan, name)

    def take_over(self, plan: ServePlan, name: str) -> None:
        """Put the plan's version in the place of the other."""
        self._steer.take_over(plan, name)

    def remove(self, plan: ServePlan, name: str) -> None:
        """Take away the versions that the plan does not have."""
        self._steer.remove(plan, name)
        record(plan)

    def served(self, name: str) -> str | None:
        """Return the version in the settings of the deployment."""
        settings = self._internals.user_config(name, DEPLOYMENT)
        return None if settings is None else settings.get("model")

    def seen(self, name: str) -> Iterable[Seen]:
        """Return the counters."""
        return self._steer.seen(name)
