"""A version that was trained -> checked by the gates, and promoted or rolled out."""

from raystack.errors import ConfigError, Problem
from raystack.plan.automation import AutomationPlan, plan_release
from raystack.plan.rollout import RolloutPlan
from raystack.registry.gates import check, promote, refused
from raystack.registry.gates.promote import tracking_of
from raystack.rollout.automation.loop import Verdict
from raystack.rollout.automation.rounds import Round
from raystack.rollout.start import start
from raystack.rollout.store import RolloutStore, current

WHO = "raystack automate"


class Release:
    """What follows a training."""

    def __init__(self, plan: AutomationPlan) -> None:
        self._plan = plan

    def check(self, round: Round) -> Verdict:
        """Check the version by `registry.gates`; a refusal is in the registry's audit, too."""
        config = self._plan.config
        tracking, alias = tracking_of(config), self._plan.alias
        report = check(config, str(round.version), tracking, alias=alias)
        if not report.passed:
            refused(report, tracking, config.experiment.storage, alias=alias, who=WHO)
        return Verdict(report.passed, report.why, report.measured)

    def begin(self, round: Round) -> str | None:
        """Promote the version, or begin its rollout; return the id of the rollout, if one was begun."""
        if self._plan.automation.then == "promote":
            why = f"round {round.id}: {round.trigger.what}"
            promotion = promote(self._plan.config, str(round.version), alias=None, who=WHO, why=why)
            if not promotion.done:
                raise ConfigError(Problem(str(round.version), rule=promotion.report.why))
            return None
        plan = self._rollout(round)
        if (running := current(plan.folder)) is not None:
            state = running.state()
            # The process may have ended after it began it.
            if state.candidate == round.version and state.began >= round.began:
                return state.id
        return start(plan, supersede=True).id

    def ended(self, round: Round) -> Verdict | None:
        """Return what became of the rollout; None if it goes on."""
        state = self._store(round).state()
        if not state.over:
            return None
        numbers = {"rollout": state.id, "requests": state.new.answered, "reaction_s": state.reaction_s}
        return Verdict(state.status == "finished", f"{state.status}: {state.cause or state.last}", numbers)

    def abort(self, round: Round, why: str) -> None:
        """Have the rollout go back; its own process does it at its next look."""
        if round.rollout is not None and not self._store(round).state().over:
            self._store(round).order("abort", who=WHO, why=why)

    def _store(self, round: Round) -> RolloutStore:
        return RolloutStore(f"{self._rollout(round).folder}/{round.rollout}")

    def _rollout(self, round: Round) -> RolloutPlan:
        return plan_release(self._plan.config, str(round.version))
