"""Routes to the RayServices of two versions: of the Gateway API, or of Istio."""

from collections.abc import Sequence
from typing import Any

from raystack.kuberay.manifest.parts import Manifest, given, manifest
from raystack.plan import KubePlan
from raystack.plan.kuberay import RoutePlan, Routes

GATEWAY = "gateway.networking.k8s.io/v1"
GRPC = {"content-type": {"prefix": "application/grpc"}}
"""Header by which Istio tells gRPC, whatever the port that a gateway listens on."""
Backend = tuple[str, int]
"""Name and port of a Service."""


def routes(plan: RoutePlan) -> list[Manifest]:
    """Return what splits the requests; nothing if Ray Serve does."""
    if plan.routes is None:
        return []
    stable = plan.services[0]
    assert stable.serve is not None
    http = [_backend(each, "serve-svc", stable.serve.serving.port) for each in plan.services]
    grpc: list[Backend] = []
    if (port := stable.serve.serving.grpc_port) is not None:
        grpc = [_backend(each, "grpc", port) for each in plan.services]
    services = [_grpc_service(each, port) for each in plan.services if port is not None]
    if plan.routes.mesh.kind == "istio":
        return [*services, _virtual_service(stable, plan.routes, http, grpc)]
    listeners = plan.routes.mesh.listener, plan.routes.mesh.grpc_listener
    found = [_route(stable, plan.routes, "HTTPRoute", http, listeners[0])]
    if grpc:
        found.append(_route(stable, plan.routes, "GRPCRoute", grpc, listeners[1]))
    return [*services, *found]


def _backend(plan: KubePlan, suffix: str, port: int) -> Backend:
    return f"{plan.name}-{suffix}", port


def _grpc_service(plan: KubePlan, port: int) -> Manifest:
    """Return a Service for gRPC, because KubeRay's own has the port for HTTP alone."""
    name, _ = _backend(plan, "grpc", port)
    # KubeRay gives the label to pods whose proxy answers.
    selector = {"app.kubernetes.io/instance": plan.name, "ray.io/serve": "true"}
    spec = {"selector": selector, "ports": [{"name": "grpc", "port": port, "targetPort": port}]}
    return manifest(plan, "v1", "Service", name, spec=spec)


def _route(
    plan: KubePlan, of: Routes, kind: str, backends: Sequence[Backend], listener: str | None
) -> Manifest:
    """Return a route of the Gateway API: through a gateway, or for requests to the first Service."""
    weighted = [
        {"name": name, "port": port, "weight": weight}
        for (name, port), weight in zip(backends, of.weights, strict=True)
    ]
    rule = {**given(filters=_mirror_filter(of, backends[-1])), "backendRefs": weighted}
    spec = {
        "parentRefs": [_parent(of, backends[0], listener)],
        **given(hostnames=list(of.mesh.hosts)),
        "rules": [rule],
    }
    return manifest(plan, GATEWAY, kind, plan.name, spec=spec)


def _parent(of: Routes, service: Backend, listener: str | None) -> dict[str, Any]:
    if of.mesh.gateway is None:
        return {"group": "", "kind": "Service", "name": service[0], "port": service[1]}
    namespace, _, name = of.mesh.gateway.rpartition("/")
    return {"name": name, **given(namespace=namespace or None, sectionName=listener)}


def _mirror_filter(of: Routes, backend: Backend) -> list[dict[str, Any]]:
    if of.mirror is None:
        return []
    copied, scale = of.mirror
    share: dict[str, Any] = {"percent": copied}
    if scale != 100:
        share = {"fraction": {"numerator": copied, "denominator": scale}}
    reference = {"name": backend[0], "port": backend[1]}
    return [{"type": "RequestMirror", "requestMirror": {"backendRef": reference, **share}}]


def _virtual_service(
    plan: KubePlan, of: Routes, http: Sequence[Backend], grpc: Sequence[Backend]
) -> Manifest:
    """Return a VirtualService. It needs no DestinationRule: each version has a Service of its own."""
    hosts = [backends[0][0] for backends in (http, grpc) if backends]
    if of.mesh.gateway is not None:
        hosts = list(of.mesh.hosts) or ["*"]
    told = [{"match": [{"headers": GRPC}], **_shared_out(of, grpc)}] if grpc else []
    spec = {
        "hosts": hosts,
        **given(gateways=[of.mesh.gateway] if of.mesh.gateway is not None else None),
        "http": [*told, _shared_out(of, http)],
    }
    return manifest(plan, "networking.istio.io/v1", "VirtualService", plan.name, spec=spec)


def _shared_out(of: Routes, backends: Sequence[Backend]) -> dict[str, Any]:
    destinations = [{"host": name, "port": {"number": port}} for name, port in backends]
    weighted = [
        {"destination": destination, "weight": weight}
        for destination, weight in zip(destinations, of.weights, strict=True)
    ]
    if of.mirror is None:
        return {"route": weighted}
    copied, scale = of.mirror
    percent = {"value": 100 * copied / scale}
    return {"route": weighted, "mirror": destinations[-1], "mirrorPercentage": percent}
