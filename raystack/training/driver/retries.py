"""The decision between another attempt and the end. In: why an attempt ended. Out: whether one follows."""

from dataclasses import replace

from raystack.checkpoint import CheckpointStore
from raystack.config.faults import Faults
from raystack.errors import RaystackError
from raystack.events import Warned
from raystack.training.driver.coordinator import RunState
from raystack.training.driver.link import Link
from raystack.training.driver.recovery import Budget, Cause


class Retries:
    """Counts the attempts of a run, tells the user why another one follows, and prepares the coordinator."""

    def __init__(self, link: Link, faults: Faults, store: CheckpointStore) -> None:
        self._link, self._budget, self._store = link, Budget(faults), store

    def again(self, cause: Cause, state: RunState) -> bool:
        """Return whether another attempt follows one that ended for this cause."""
        newest = self._newest(state)
        wait_s = self._budget.take(cause.kind, newest)
        if wait_s is None:
            return False
        # A resize is the run's own request: a warning would read like a failure.
        if cause.kind != "resize":
            where = f"step {newest}" if newest else "the start"
            what = "; ".join(str(replace(problem, remedy=None)) for problem in cause.error.problems)
            self.tell(f"{what}; goes on from {where} ({cause.kind}: {self._budget.used(cause.kind)})")
        self._link.ask("begin", wait_s)
        return True

    def tell(self, text: str) -> None:
        """Have the driver warn the user."""
        self._link.ask("put", [Warned(text)])

    def _newest(self, state: RunState) -> int:
        """Return the step of the newest checkpoint; 0 if there is none."""
        # From the store, because a worker that hangs, or was killed, has not reported its last one.
        try:
            return self._store.newest() or 0
        except RaystackError:
            return state.newest
