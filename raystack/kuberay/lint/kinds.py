"""Objects that are nearly KubeRay's: of a kind that it does not have, or of another API group."""

from raystack.errors import nearest
from raystack.kuberay.lint.document import Document
from raystack.kuberay.lint.finding import Finding
from raystack.kuberay.lint.rules.schema import KIND
from raystack.plan.kuberay.facts import RAY_KINDS

GROUP = "ray.io"


def kind_findings(document: Document) -> list[Finding]:
    """Return what is wrong with the kind and the group of an object that is not KubeRay's."""
    root = document.root
    version, kind = root["apiVersion"], root["kind"]
    group = version.text.partition("/")[0]
    if group == GROUP and document.kind not in RAY_KINDS:
        meant = _meant(document.kind)
        says = f"KubeRay has no kind {document.kind or '(none)'}"
        remedy = f"did you mean {meant}?" if meant else KIND.remedy
        return [_finding(document, kind.keys, kind.path, says, remedy)]
    if document.kind in RAY_KINDS and (group != GROUP or "/" not in version.text) and _near(group):
        says = f"{document.kind} is of {GROUP}/v1 (got {version.text or 'none'})"
        return [_finding(document, version.keys, version.path, says, f"write apiVersion: {GROUP}/v1")]
    return []


def _near(group: str) -> bool:
    """Return whether a group can be meant to be KubeRay's; others have RayJobs of their own."""
    return group in ("", "v1", GROUP) or nearest(group, [GROUP]) is not None


def _meant(kind: str) -> str | None:
    folded = {known.lower(): known for known in RAY_KINDS}
    found = nearest(kind.lower(), folded)
    return folded[found] if found else None


def _finding(document: Document, keys: tuple[str | int, ...], path: str, says: str, remedy: str) -> Finding:
    return Finding(KIND.id, KIND.level, document.where(keys), path, f"{says}: {KIND.why}", remedy)
