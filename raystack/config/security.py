"""Security on Kubernetes: authentication, encryption, the network and the user of the containers."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from raystack.config.kubernetes import Name
from raystack.config.section import ConflictError, Section, Text


class Security(Section):
    """Authentication, encryption, network policy and the user of the containers."""

    auth: Literal["token", "disabled"] = "token"
    """Ray's token authentication: submitting to the cluster and opening its dashboard need the token."""

    auth_secret: Name | None = None
    """Secret with the key `auth_token`. Not set: KubeRay creates one with the name of the cluster."""

    tls: bool = False
    """mTLS between Ray's processes, by cert-manager (KubeRay 1.7, feature gate RayClusterMTLS)."""

    network_policy: bool = False
    """Deny traffic from and to other pods, except DNS, the API server, the operator and `allow`."""

    network_policy_by: Literal["kuberay", "manifest"] = "kuberay"
    """Who makes the NetworkPolicies. `kuberay`: the operator, one for each group (KubeRay 1.7, feature gate
    RayClusterNetworkPolicy). `manifest`: they are rendered beside the other objects, for any KubeRay, and are
    there before the pods.
    """

    operator_namespace: Name = "kuberay-system"
    """Namespace of the operator, which has to reach the dashboard."""

    allow: Annotated[tuple[Text, ...], Field(strict=False)] = ("0.0.0.0/0",)
    """Additional CIDRs that pods may reach, e.g. object stores and MLflow."""

    run_as: PositiveInt | None = 1000
    """User id of the containers, never root. null: the image's own user, which has to be a number other than
    0.
    """

    @model_validator(mode="after")
    def _takes_effect(self) -> Self:
        if self.network_policy_by != "kuberay" and not self.network_policy:
            raise ConflictError(
                "nobody makes policies that are not wanted",
                "network_policy_by",
                "network_policy",
                remedy="set network_policy=true, or drop it",
            )
        return self
