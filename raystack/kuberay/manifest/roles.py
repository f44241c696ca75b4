"""Roles with the rights that each verb needs."""

from raystack.kuberay.manifest.parts import Manifest
from raystack.plan.kuberay.access import ACCESS, rules

VERBS = "raystack/verbs"
"""Annotation with the verbs of the command line that need the role."""


def roles(namespace: str) -> tuple[Manifest, ...]:
    """Return a Role for each group of verbs, and the ClusterRole of the doctor.

    Whom they are bound to is left to the cluster.
    """
    return tuple(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole" if access.everywhere else "Role",
            "metadata": {
                "name": access.name,
                **({} if access.everywhere else {"namespace": namespace}),
                "annotations": {VERBS: ", ".join(access.verbs)},
            },
            "rules": [*rules(access)],
        }
        for access in ACCESS
    )
