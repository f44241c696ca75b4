"""Linter for manifests: KubeRay's rules, and pitfalls that nothing else checks.

In: YAML documents, and what is known of the operator. Out: findings.

Pure: no cluster is needed. The schemas are those of KubeRay's CRDs, shipped with raystack.
"""

from collections.abc import Sequence

from raystack.kuberay.lint.crd import schema_findings, violations
from raystack.kuberay.lint.document import Document, carried, documents
from raystack.kuberay.lint.files import read, read_all
from raystack.kuberay.lint.finding import Finding, Level
from raystack.kuberay.lint.kinds import kind_findings
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.page import page
from raystack.kuberay.lint.rule import Rule
from raystack.kuberay.lint.rules import RULES
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
        hidden = [each.hides for each in broken if each.hides is not None]
        found += [each.finding(document) for each in broken]
        found += [
            finding
            for rule in RULES.values()
            for part in parts
            for finding in rule.findings(part, operator)
            if not any(_below(finding.path, path) for path in hidden)
        ]
    return found


def _below(path: str, above: str) -> bool:
    """Return whether a path is another one, or of a field in it."""
    return path == above or path.startswith((f"{above}.", f"{above}["))


def markdown() -> str:
    """Return the text of docs/lint.md."""
    return page(RULES)
