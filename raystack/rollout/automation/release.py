"""A version that was trained -> checked by the gates, and promoted or rolled out."""

from raystack.errors import PlanError, Problem
from raystack.plan.automation import AutomationPlan
from raystack.rollout.automation.loop import Verdict
from raystack.rollout.automation.rounds import Round


class Release:
    """What follows a training."""

    def __init__(self, plan: AutomationPlan) -> None:
        self._plan = plan

    def check(self, round: Round) -> Verdict:
        """Check the version by `registry.gates`."""
        return Verdict(True, "no gates are set")

    def begin(self, round: Round) -> str | None:
        """Promote the version, or begin its rollout; return the id of the rollout, if one was begun."""
        raise PlanError(Problem("automation.then", rule="is not there yet"))

    def ended(self, round: Round) -> Verdict | None:
        """Return what became of the rollout; None if it goes on."""
        return None

    def abort(self, round: Round, why: str) -> None:
        """End the rollout at once: all traffic goes back."""
