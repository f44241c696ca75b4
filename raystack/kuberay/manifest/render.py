"""Rendering of a KubePlan and a Bundle as manifests, in the order in which they are applied."""

from typing import TYPE_CHECKING

from raystack.kuberay.manifest import code, cron, monitoring, network, security
from raystack.kuberay.manifest.cluster import cluster
from raystack.kuberay.manifest.job import job
from raystack.kuberay.manifest.katib import experiment
from raystack.kuberay.manifest.parts import Manifest
from raystack.kuberay.manifest.routes import routes
from raystack.kuberay.manifest.service import service
from raystack.plan import KubePlan
from raystack.plan.kuberay import RoutePlan

if TYPE_CHECKING:
    from raystack.code.bundle import Bundle


def render(plan: KubePlan, bundle: "Bundle") -> tuple[Manifest, ...]:
    """Return accounts, policies, code, budgets and monitors, then the main object.

    Raises PlanError if the bundle cannot be delivered to the cluster.
    """
    carried = (
        [code.config_map(plan, bundle)] if plan.entrypoint and code.bundle_url(plan, bundle) is None else []
    )
    return (
        *security.accounts(plan),
        *network.policies(plan),
        *carried,
        *monitoring.budgets(plan),
        *monitoring.pod_monitors(plan),
        *_main(plan, bundle),
    )


def render_rollout(plan: RoutePlan, bundle: "Bundle") -> tuple[Manifest, ...]:
    """Return the objects of each version's service, and the routes to them last."""
    services = [each for service in plan.services for each in render(service, bundle)]
    return (*services, *routes(plan))


def _main(plan: KubePlan, bundle: "Bundle") -> list[Manifest]:
    match plan.kind:
        case "RayJob":
            return [job(plan, bundle)]
        case "RayService":
            return [service(plan, bundle)]
        case "RayCluster":
            return [cluster(plan, bundle)]
        case "RayCronJob":
            return [cron.ray_cron_job(plan, bundle)]
        case "CronJob":
            return cron.cron_job(plan, bundle)
        case "Experiment":
            return [experiment(plan, bundle)]
