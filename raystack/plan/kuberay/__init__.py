"""Plans for Kubernetes.

In: a RunConfig whose target is kuberay. Out: a KubePlan, from which manifests are rendered.

Every rule of KubeRay that can be known beforehand is checked here: whatever the operator would reject, leave
hanging or ignore is a PlanError with the dotted key and the remedy, all of them at once.
"""

from raystack.plan.kuberay.decide import plan_kuberay
from raystack.plan.kuberay.routes import RoutePlan, Routes, plan_routes
from raystack.plan.kuberay.shape import Form, KubePlan, Requirement

__all__ = ["Form", "KubePlan", "Requirement", "RoutePlan", "Routes", "plan_kuberay", "plan_routes"]
