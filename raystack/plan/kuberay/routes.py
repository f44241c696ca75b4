"""A step of a rollout -> the RayServices of its versions, and who splits the requests between them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.config.mesh import Mesh
from raystack.errors import PlanError, Problem
from raystack.plan.kuberay.decide import plan_kuberay
from raystack.plan.kuberay.shape import KubePlan, Requirement
from raystack.plan.rollout import RolloutPlan, plan_steps
from raystack.plan.serving import ServePlan

SCALES = (100, 1_000, 10_000, 100_000, 1_000_000)
"""Sums of two weights. The largest is the Gateway API's largest weight."""
GATEWAY_API = "the Gateway API 1.3 or later"
"""Mirrors a share of the requests, which earlier ones do not."""


@dataclass(frozen=True)
class Routes:
    """Split of the requests between two RayServices."""

    mesh: Mesh
    weights: tuple[int, int]
    """Weights of the version that is served and of the new one."""
    mirror: tuple[int, int] | None
    """Share of the requests that the new version gets copies of: some out of so many. None for no copies."""


@dataclass(frozen=True)
class RoutePlan:
    """Objects of a step of a rollout."""

    services: tuple[KubePlan, ...]
    """RayService of both versions; with a mesh one of that which is served, and one of the new one."""
    routes: Routes | None
    """None without a mesh: the version that is served hands requests over itself."""


def plan_routes(config: RunConfig, step: int = 1, local_ray: str | None = None) -> RoutePlan:
    """Decide on the objects of a step, counted from 1. In step 0 the new version runs and gets no request.

    Raises ConfigError without a rollout, PlanError for one that cannot be on Kubernetes.
    """
    plan = plan_steps(config)
    if step > len(plan.steps) or step < 0:
        rule = f"should be from 0 to {len(plan.steps)}, the number of steps"
        raise PlanError(Problem("--step", rule=rule, got=str(step)))
    at = plan.at(plan.steps[step - 1].weight if step else 0.0)
    if plan.rollout.mesh is None:
        return RoutePlan((_service(config, at, local_ray),), None)
    if problems := list(_mesh_problems(config, plan, plan.rollout.mesh)):
        raise PlanError(problems)
    stable = _service(config, plan.at(None), local_ray)
    candidate = _service(config, plan.promoted, local_ray, f"{plan.name}-candidate")
    needs = (*stable.needs, _need(plan.rollout.mesh))
    services = (replace(stable, needs=needs), replace(candidate, needs=needs))
    return RoutePlan(services, _routes(plan, at, plan.rollout.mesh))


def _service(
    config: RunConfig, serve: ServePlan, local_ray: str | None, title: str | None = None
) -> KubePlan:
    served = config.model_copy(update={"serving": serve.serving, "rollout": None})
    return plan_kuberay(served, None, "service", local_ray, title)


def _routes(plan: RolloutPlan, at: ServePlan, mesh: Mesh) -> Routes:
    split = at.serving.split
    assert split is not None
    mirror = None
    if split.shadow is not None:
        rest, copied = whole(split.shadow.share)
        mirror = (copied, rest + copied)
    return Routes(mesh, whole(split.models[plan.candidate]), mirror)


def whole(share: float) -> tuple[int, int]:
    """Return the rest and the share as whole numbers with the smallest sum of 100, 1,000 and so on.

    Exact to six digits after the point. A share that is smaller or larger is rounded, but never to nothing or
    everything.
    """
    for scale in SCALES:
        part = round(share * scale)
        if abs(part - share * scale) < 1e-9:
            break
    part = min(max(part, int(share > 0)), scale - int(share < 1))
    return scale - part, part


def _need(mesh: Mesh) -> Requirement:
    name = "Istio" if mesh.kind == "istio" else GATEWAY_API
    return Requirement("component", name, "rollout.mesh.kind")


def _mesh_problems(config: RunConfig, plan: RolloutPlan, mesh: Mesh) -> Iterator[Problem]:
    """Yield what a mesh cannot do, all of which Ray Serve can."""
    without = "drop it, or rollout.mesh"
    if plan.rollout.sticky is not None:
        rule = "a mesh draws each request anew: no key stays with a version"
        yield Problem("rollout.sticky", rule=rule, remedy=without)
    if plan.serve.several:
        rule = "a mesh splits the requests of a whole server, and this one has several models"
        yield Problem("rollout.mesh", rule=rule, remedy="drop it: then Ray Serve splits those of one model")
    if isinstance(config.target, KubeRay) and config.target.upgrade.gateway_class is not None:
        rule = "has KubeRay make routes of its own, to services that are named otherwise"
        yield Problem("target.upgrade.gateway_class", rule=rule, remedy="set target.upgrade.kind=NewCluster")
    together = mesh.kind == "gateway" and mesh.gateway is not None and plan.serve.grpc is not None
    for key in ("listener", "grpc_listener"):
        if together and getattr(mesh, key) is None:
            rule = "a listener takes either HTTP or gRPC for a host, and serving.grpc_port is set"
            yield Problem(f"rollout.mesh.{key}", rule=rule, remedy="name one listener for each")
