"""Rules that the CRD's schema and its names decide; `schema_findings` and `kind_findings` find violations."""

from raystack.kuberay.lint.rule import REFUSED, Rule
from raystack.kuberay.lint.subject import ObjectSubject
from raystack.plan.kuberay.facts import RAY_KINDS


def _of_schema(id: str, says: str, why: str, remedy: str) -> Rule:
    return Rule(id, "error", says, why, remedy, "1.0.0", RAY_KINDS, ObjectSubject, None)


KIND = _of_schema(
    "RS112",
    f"an object of ray.io is one of {', '.join(RAY_KINDS)}",
    "the API server has no such kind and refuses it",
    f"choose one of {', '.join(RAY_KINDS)}",
)
UNKNOWN = _of_schema(
    "RS120",
    "the CRD has the field",
    "the API server drops it without a word, unless it is strict",
    "check its spelling",
)
TYPE = _of_schema(
    "RS121",
    "the value has the type of the CRD",
    REFUSED,
    "write it as that type",
)
RANGE = _of_schema("RS122", "the value is one that the CRD allows", REFUSED, "choose one that it allows")
NOTHING = Rule(
    "RS100",
    "warning",
    "there is an object of KubeRay",
    "nothing was looked at",
    "give a file with a RayCluster, RayJob, RayService or RayCronJob",
    "1.0.0",
    RAY_KINDS,
    ObjectSubject,
    None,
)
"""Of a file, and not of an object: `files.read_all` finds violations."""
MISSING = _of_schema("RS123", "what the CRD requires is there", REFUSED, "give it")
