"""RayService: a cluster that serves a model and is upgraded without a gap."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from raystack.kuberay.manifest.cluster import cluster_spec
from raystack.kuberay.manifest.overlay import overlaid
from raystack.kuberay.manifest.parts import Manifest, given, manifest
from raystack.plan import KubePlan, ServePlan
from raystack.plan.serving import SERVER, gateway

if TYPE_CHECKING:
    from raystack.code.bundle import Bundle


def service(plan: KubePlan, bundle: "Bundle") -> Manifest:
    """Return a RayService whose head serves no requests."""
    assert plan.serve is not None
    spec = {
        **given(managedBy=plan.admission.managed_by),
        "upgradeStrategy": _upgrade(plan),
        "excludeHeadPodFromServeSvc": True,
        # Changes of replicas, limits or model are in this field, which KubeRay applies in place.
        "serveConfigV2": serve_config(plan.serve, plan.target.runtime_env),
        "rayClusterConfig": cluster_spec(plan, bundle),
    }
    labels, annotations = plan.admission.labels, plan.admission.annotations
    made = manifest(
        plan, "ray.io/v1", "RayService", plan.name, labels=labels, annotations=annotations, spec=spec
    )
    return overlaid(plan, made)


def serve_config(serve: ServePlan, runtime_env: Mapping[str, Any] | None = None) -> str:
    """Return Ray Serve's config as YAML: an application for each version, built by `raystack.serving:build`.

    Other arguments have it built anew, and all replicas replaced; other options are applied in place.
    """
    beside = [_application(model, name, None) for name, model in serve.beside.items()]
    applications = [*beside, *(_application(model, model.name, model.route) for model in serve.models)]
    if serve.several:
        applications.append(_gateway(serve))
    if runtime_env:
        applications = [{**each, "runtime_env": dict(runtime_env)} for each in applications]
    config = {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": serve.serving.port},
        **given(grpc_options=serve.grpc),
        "applications": applications,
    }
    return yaml.safe_dump(config, sort_keys=False, width=1000)


def _application(model: ServePlan, name: str, route: str | None) -> dict[str, Any]:
    """Return an application; no client's path leads to one without a route, a version beside a model."""
    arguments, options = model.split()
    return {
        "name": name,
        "import_path": "raystack.serving:build",
        "route_prefix": route,
        "args": arguments,
        "deployments": [options],
    }


def _gateway(serve: ServePlan) -> dict[str, Any]:
    options = gateway(serve.serving)
    resources = options.pop("ray_actor_options")
    return {
        "name": SERVER,
        "import_path": "raystack.serving:build_server",
        "route_prefix": "/",
        "args": {
            "cpus_per_replica": resources["num_cpus"],
            "gpus_per_replica": resources["num_gpus"],
            **given(tracking={"uri": serve.tracking.uri} if serve.tracking.uri else None),
        },
        "deployments": [options],
    }


def _upgrade(plan: KubePlan) -> dict[str, Any]:
    config = plan.target.upgrade
    if config.kind != "NewClusterWithIncrementalUpgrade":
        return {"type": config.kind}
    options = {
        "gatewayClassName": config.gateway_class,
        "stepSizePercent": config.step_percent,
        "intervalSeconds": config.interval_s,
        "maxSurgePercent": config.surge_percent,
    }
    return {"type": config.kind, "clusterUpgradeOptions": options}
