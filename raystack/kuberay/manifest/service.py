"""A RayService: a cluster that serves a model, and is replaced without a gap."""

from typing import TYPE_CHECKING, Any

import yaml

from raystack.kuberay.manifest.cluster import cluster_spec
from raystack.kuberay.manifest.parts import Manifest, given, manifest
from raystack.plan import KubePlan, ServePlan

if TYPE_CHECKING:
    from raystack.code.bundle import Bundle


def service(plan: KubePlan, bundle: "Bundle") -> Manifest:
    """The head answers no requests. Other replicas, limits or another model are changed in place, on the same
    cluster.
    """
    assert plan.serve is not None
    spec = {
        **given(managedBy=plan.admission.managed_by),
        "upgradeStrategy": _upgrade(plan),
        "excludeHeadPodFromServeSvc": True,
        "serveConfigV2": serve_config(plan.serve),
        "rayClusterConfig": cluster_spec(plan, bundle),
    }
    labels, annotations = plan.admission.labels, plan.admission.annotations
    return manifest(
        plan, "ray.io/v1", "RayService", plan.name, labels=labels, annotations=annotations, spec=spec
    )


def serve_config(serve: ServePlan) -> str:
    """Ray Serve's own config, as YAML: one application, built from the arguments of
    `raystack.serving:build`.
    """
    arguments = given(
        name=serve.name,
        model=serve.model,
        replicas=serve.replicas,
        cpus_per_replica=serve.cpus,
        gpus_per_replica=serve.gpus,
        max_ongoing=serve.max_ongoing,
        max_queued=serve.max_queued,
        **{"batching.max_size": serve.batching.max_size, "batching.wait_ms": serve.batching.wait_ms},
        tracking_uri=serve.tracking_uri,
    )
    application = {
        "name": serve.name,
        "import_path": "raystack.serving:build",
        "route_prefix": "/",
        "args": arguments,
    }
    config = {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": serve.port},
        "applications": [application],
    }
    return yaml.safe_dump(config, sort_keys=False, width=1000)


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
