"""Decisions: RunConfig -> KubePlan."""

from collections.abc import Mapping

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.errors import PlanError, Problem
from raystack.plan.kuberay.connectivity import CODE, plan_variables, reach_problems
from raystack.plan.kuberay.lifecycle import life_problems
from raystack.plan.kuberay.names import LIMITS, safe_name
from raystack.plan.kuberay.pods import asked, plan_group, plan_head, pod_problems
from raystack.plan.kuberay.queue import plan_queue, queue_problems
from raystack.plan.kuberay.requirements import plan_needs, version_problems
from raystack.plan.kuberay.shape import Form, KubePlan, ManifestKind
from raystack.plan.serving import ServePlan, plan_serving

_KINDS: Mapping[Form, ManifestKind] = {
    "job": "RayJob",
    "service": "RayService",
    "cluster": "RayCluster",
    "cron": "RayCronJob",
}


def plan_kuberay(config: RunConfig, run_id: str | None, form: Form, local_ray: str | None = None) -> KubePlan:
    """Return the plan. Raises PlanError with every reason why KubeRay could not run it.

    A submitted job is named after `run_id`, and a service after its model. Other objects are called
    `<experiment>-job`, `<experiment>-cluster` or `<experiment>-cron`: applied again they replace themselves,
    and nothing of another form. `local_ray` is the version of the installed Ray, to be compared with the
    image's.
    """
    target = config.target
    if not isinstance(target, KubeRay):
        raise PlanError(
            Problem("target.kind", rule="should be kuberay", got=target.kind, remedy="add target=kuberay")
        )
    serve = plan_serving(config) if form == "service" else None
    name = safe_name(_title(config, run_id, form, serve), LIMITS[form])
    wanted, admission = asked(config, target, form), plan_queue(target, name)
    group = plan_group(target, wanted, admission)
    needs = plan_needs(target, form, group)
    found = [
        *pod_problems(config, target, form, wanted),
        *queue_problems(target, form),
        *life_problems(target, form),
        *reach_problems(config, target, form, serve),
        *version_problems(target, needs, local_ray),
    ]
    if found:
        raise PlanError(found)
    return KubePlan(
        form=form,
        kind="CronJob" if form == "cron" and target.queue.scheduler != "none" else _KINDS[form],
        name=name,
        namespace=target.namespace,
        run_id=run_id if form == "job" else None,
        account=target.service_account or _account(config, target, name),
        makes_account=target.service_account is None,
        labels=_labels(config, target, name),
        annotations=target.annotations,
        head=plan_head(target, admission),
        group=group,
        variables=plan_variables(config, target, serve),
        entrypoint=("python", "-m", "raystack.train", f"{CODE}/config.yaml")
        if form in ("job", "cron")
        else (),
        admission=admission,
        serve=serve,
        needs=needs,
        target=target,
        config=config,
    )


def _labels(config: RunConfig, target: KubeRay, name: str) -> dict[str, str]:
    """Return the user's labels, and those that Kubernetes recommends."""
    return {
        **target.labels,
        "app.kubernetes.io/managed-by": "raystack",
        "app.kubernetes.io/part-of": config.experiment.name,
        "app.kubernetes.io/instance": name,
    }


def _title(config: RunConfig, run_id: str | None, form: Form, serve: ServePlan | None) -> str:
    if form == "job" and run_id is not None:
        return run_id
    return serve.name if serve is not None else f"{config.experiment.name}-{form}"


def _account(config: RunConfig, target: KubeRay, name: str) -> str:
    """Return the name of the pods' account."""
    identity = target.storage.aws_role or target.storage.gcp_service_account
    # A cloud trusts a ServiceAccount by its name, so one with an identity is shared by all runs of the
    # experiment.
    return safe_name(config.experiment.name, 53) if identity else name
