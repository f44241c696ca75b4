"""What an automation does outside: it looks, trains, checks, and promotes or rolls out."""

from collections.abc import Callable

from raystack.plan.automation import AutomationPlan
from raystack.rollout.automation.loop import Ended, Verdict
from raystack.rollout.automation.release import Release
from raystack.rollout.automation.rounds import Round, Seen, State
from raystack.rollout.automation.sources import Sources
from raystack.rollout.automation.trainings import Trainings
from raystack.storage import Storage


class Actions:
    """The real ones."""

    def __init__(self, plan: AutomationPlan, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._sources = Sources(plan.automation)
        self._trainings = Trainings(plan, say)
        self._release = Release(plan)

    def look(self, state: State, now: float) -> Seen:
        """Look at the sources of triggers."""
        return self._sources.look(now)

    def stops(self) -> bool:
        """Return whether the file is there that stops everything."""
        folder, _, name = self._plan.stop.rpartition("/")
        return name in Storage(folder).names()

    def train(self, round: Round) -> int:
        """Start the attempt of a training; return its process."""
        return self._trainings.start(round)

    def trained(self, round: Round) -> Ended | None:
        """Return how the training has ended; None if it goes on."""
        return self._trainings.ended(round)

    def check(self, round: Round) -> Verdict:
        """Check the version by the gates."""
        return self._release.check(round)

    def release(self, round: Round) -> str | None:
        """Promote the version, or begin its rollout; return the id of the rollout, if one was begun."""
        return self._release.begin(round)

    def released(self, round: Round) -> Verdict | None:
        """Return what became of the rollout; None if it goes on."""
        return self._release.ended(round)

    def end(self, round: Round, why: str) -> None:
        """End the training or the rollout of a round at once."""
        self._trainings.stop(round)
        if round.phase == "releasing":
            self._release.abort(round, why)
