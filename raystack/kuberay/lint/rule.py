"""Rules: statement, reason, usual remedy, and the function that finds violations."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from raystack.kuberay.lint.finding import Finding, Level
from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.subject import Subject
from raystack.plan.kuberay.facts import RAY_KINDS, RayKind


@dataclass(frozen=True)
class Breach:
    """Violation of a rule, with texts that differ from the rule's."""

    node: Node
    says: str | None = None
    remedy: str | None = None
    level: Level | None = None


S = TypeVar("S", bound=Subject)
Check = Callable[[Any, Operator], Iterable[Breach]]


@dataclass(frozen=True)
class Rule:
    """Rule of the linter."""

    id: str
    level: Level
    says: str
    """Requirement, as a statement."""
    why: str
    """Consequence of a violation."""
    remedy: str
    since: str
    """First KubeRay version to which the rule applies; older ones lack what it is about."""
    kinds: tuple[RayKind, ...]
    """Objects it applies to."""
    on: type[Subject]
    check: Check | None
    """None if the CRD's schema decides: see `schema_findings`."""

    def findings(self, subject: Subject, operator: Operator) -> Iterable[Finding]:
        """Yield the violations of the rule."""
        if (
            self.check is None
            or not isinstance(subject, self.on)
            or subject.kind not in self.kinds
            or not operator.at_least(self.since)
        ):
            return
        for breach in self.check(subject, operator):
            reason = f"{breach.says or self.says}: {self.why}"
            where = subject.document.where(breach.node.keys)
            yield Finding(
                self.id,
                breach.level or self.level,
                where,
                breach.node.path,
                reason,
                breach.remedy or self.remedy,
            )


def rule(
    id: str,
    *,
    on: type[S],
    says: str,
    why: str,
    remedy: str,
    kinds: tuple[RayKind, ...] = RAY_KINDS,
    level: Level = "error",
    since: str = "1.0.0",
) -> Callable[[Callable[[S, Operator], Iterable[Breach]]], Rule]:
    """Make a rule of a function that yields its violations."""

    def make(check: Callable[[S, Operator], Iterable[Breach]]) -> Rule:
        return Rule(id, level, says, why, remedy, since, kinds, on, check)

    return make


REFUSED = "the API server refuses the object"
INVALID = "the operator refuses the spec, and says so only in an event or in a status that is final"
NO_PODS = "the API server refuses the pods, and the operator tries again and again"
