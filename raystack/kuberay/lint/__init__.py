"""Linter for manifests: KubeRay's rules, and pitfalls that nothing else checks.

In: YAML documents, and what is known of the operator. Out: findings.

Pure: no cluster is needed. The schemas are those of KubeRay's CRDs, shipped with raystack.
"""

from collections.abc import Collection, Sequence

from raystack.kuberay.lint.crd import schema_findings, violations
from raystack.kuberay.lint.document import Document, carried, documents
from raystack.kuberay.lint.files import read, read_all
from raystack.kuberay.lint.finding import Finding, Level
from raystack.kuberay.lint.kinds import kind_findings
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.page import page
from raystack.kuberay.lint.rule import Rule
from raystack.kuberay.lint.rules import RULES
from raystack.kuberay.lint.rules.known import newer
from raystack.kuberay.lint.subject import subjects

__all__ = [
    "RULES",
    "Document",
    "Finding",
    "Level",
    "Operator",
    "Rule",
    "documents",
    "lint",
    "markdown",
    "read",
    "read_all",
    "schema_findings",
]

ANY = Operator()


def lint(documents: Sequence[Document], operator: Operator = ANY) -> list[Finding]:
    """Return all findings, by document and rule."""
    found: list[Finding] = []
    for document in [*documents, *carried(documents)]:
        parts = list(subjects(document, documents))
        if not parts:
            found += kind_findings(document)
            continue
        broken = [each for each in violations(document) if operator.at_least(each.since)]
        dropped = {each.path for part in parts for each in newer.findings(part, operator)}
        hidden = dropped | {each.hides for each in broken if each.hides is not None}
        found += [each.finding(document) for each in broken if not _below_any(each.node.path, dropped)]
        found += [
            finding
            for rule in RULES.values()
            for part in parts
            for finding in rule.findings(part, operator)
            if rule is newer or not _below_any(finding.path, hidden)
        ]
    return found


def _below_any(path: str, above: Collection[str]) -> bool:
    """Return whether a path is one of these, or of a field in it."""
    return any(path == each or path.startswith((f"{each}.", f"{each}[")) for each in above)


def markdown() -> str:
    """Return the text of docs/lint.md."""
    return page(RULES)
