"""A rollout as rows for people and as values for programs."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from raystack.plan.rollout import RolloutPlan
from raystack.rollout.counts import Counts
from raystack.rollout.deciding import away_s, numbers
from raystack.rollout.state import Decision, State

Row = tuple[str, str]


@dataclass(frozen=True)
class RolloutView:
    """A rollout at one moment."""

    plan: RolloutPlan
    state: State

    @property
    def rows(self) -> list[Row]:
        """What it is about, as (what, value)."""
        state = self.state
        status = f"{state.status}: {state.cause}" if state.cause else state.status
        step = f"{state.step + 1} of {len(self.plan.steps)}, {self._progress()}"
        trouble = state.trouble or self._late()
        after = f"{state.reaction_s or 0.0:.1f} s after the first bad interval began"
        return [
            ("rollout", state.id),
            ("status", status),
            ("step", step),
            ("last", state.last),
            *([("trouble", trouble)] if trouble else []),
            *((f"metric {name}", f"{value.value}") for name, value in state.metrics.items()),
            *([("went back", after)] if state.reaction_s is not None else []),
        ]

    @property
    def versions(self) -> list[dict[str, str]]:
        """A row for each version."""
        state = self.state
        old = 1 - state.weight
        return [
            self._version(state.stable, old, state.old, state.p_old_ms),
            self._version(state.candidate, state.weight, state.new, state.p_new_ms),
        ]

    @property
    def bounds(self) -> list[dict[str, str]]:
        """A row for each bound, with the evidence that it is broken."""
        return [
            {
                "bound": name.replace("_", " "),
                "evidence": f"{test.e:.3g}",
                "highest": f"{test.highest:.3g}",
                "back at": f"{self.plan.wanted:,.0f}",
            }
            for name, test in self.state.tests.items()
        ]

    @property
    def values(self) -> Mapping[str, Any]:
        """All that is known, for programs."""
        state = self.state
        own = ("id", "name", "status", "cause", "doing", "began", "trouble", "last", "reaction_s")
        return {
            **{key: getattr(state, key) for key in own},
            **numbers(self.plan, state),
            "steps": len(self.plan.steps),
            "folder": f"{self.plan.folder}/{state.id}",
        }

    def _progress(self) -> str:
        state, step = self.state, self.plan.steps[self.state.step]
        if state.over:
            return f"weight {state.weight:g}"
        took = f"{max(0.0, state.read_at - state.since):.0f} of {step.min_s:g} s" if state.since else "begins"
        return f"weight {state.weight:g}, {state.in_step:,} of {step.min_requests:,} requests, {took}"

    def _late(self) -> str:
        silent = away_s(self.plan, self.state, time.time())
        if not silent:
            return ""
        return f"its process has not looked for {silent:.0f} s; `raystack rollout resume` starts it again"

    def _version(self, version: str, share: float, counts: Counts, p_ms: float | None) -> dict[str, str]:
        latency = self.plan.analysis.latency
        percentile = 99.0 if latency is None else latency.percentile
        compared = {"compared": f"{counts.compared:,}", "different": f"{counts.different:,}"}
        return {
            "version": version,
            "share": f"{share:.4g}",
            "requests": f"{counts.requests:,}",
            "errors": f"{counts.errors:,}",
            f"p{percentile:g} ms": "-" if p_ms is None else f"{p_ms:.3g}",
            **(compared if self.plan.analysis.difference is not None else {}),
        }


def decision_row(decision: Decision) -> dict[str, str]:
    """Return a decision as a row."""
    at = datetime.fromtimestamp(decision.at).strftime("%Y-%m-%d %H:%M:%S")
    return {"time": at, "who": decision.who, "what": decision.what, "why": decision.why}
