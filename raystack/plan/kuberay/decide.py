"""Decisions: RunConfig -> KubePlan."""

from collections.abc import Iterator, Mapping

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.errors import PlanError, Problem
from raystack.plan.katib import KatibPlan, plan_katib
from raystack.plan.kuberay.asked import Asked, asked
from raystack.plan.kuberay.connectivity import CODE, reach_problems
from raystack.plan.kuberay.container_rules import container_problems
from raystack.plan.kuberay.environment import plan_variables
from raystack.plan.kuberay.lifecycle import life_problems
from raystack.plan.kuberay.names import LIMITS, safe_name
from raystack.plan.kuberay.overlay import (
    accounts,
    adopt,
    overlaid_group,
    overlay_needs,
    relocated,
)
from raystack.plan.kuberay.overlay_rules import overlay_problems
from raystack.plan.kuberay.pod_rules import pod_problems
from raystack.plan.kuberay.pods import plan_further, plan_group, plan_head, plan_submitter
from raystack.plan.kuberay.queue import plan_queue, queue_problems
from raystack.plan.kuberay.requirements import plan_needs, version_problems
from raystack.plan.kuberay.shape import DRIVEN, Form, KubePlan, ManifestKind
from raystack.plan.kuberay.slices import slice_problems
from raystack.plan.kuberay.study import asked_by_study, study_problems
from raystack.plan.serving import ServePlan, plan_serving
from raystack.plan.tuning import TunePlan, plan_tuning

_KINDS: Mapping[Form, ManifestKind] = {
    "job": "RayJob",
    "service": "RayService",
    "cluster": "RayCluster",
    "cron": "RayCronJob",
    "tune": "RayJob",
    "katib": "Experiment",
}


def plan_kuberay(
    config: RunConfig,
    run_id: str | None,
    form: Form,
    local_ray: str | None = None,
    title: str | None = None,
) -> KubePlan:
    """Return the plan. Raises PlanError with every reason why KubeRay could not run it.

    A submitted job or study is named after `run_id`, and a service after its model. Other objects are called
    `<experiment>-job`, `<experiment>-cluster`, `<experiment>-cron`, `<study>-tune` or `<study>-katib`:
    applied again they replace themselves, and nothing of another form. `local_ray` is the version of the
    installed Ray, to be compared with the image's. A name is made of `title` if there is one.
    """
    target = config.target
    if not isinstance(target, KubeRay):
        raise PlanError(
            Problem("target.kind", rule="should be kuberay", got=target.kind, remedy="add target=kuberay")
        )
    serve = plan_serving(config) if form == "service" else None
    study = plan_tuning(config, run_id or config.experiment.name) if form in ("tune", "katib") else None
    katib = plan_katib(study) if study is not None and form == "katib" else None
    name = safe_name(title or _title(config, run_id, form, serve or study), LIMITS[form])
    nested = study if form == "tune" else None
    target, places, taken = adopt(config, target, form)
    wanted = asked(config, target, form) if nested is None else asked_by_study(nested, target)
    target = _decided(target, wanted, form)
    admission = plan_queue(target, name)
    account = target.service_account or _account(config, target, name)
    group, numbers = overlaid_group(plan_group(target, wanted, admission), target)
    further = plan_further(target, wanted, admission)
    needs = plan_needs(target, form, (group, *further), overlay_needs(target, account))
    found = [
        *(study_problems if nested else pod_problems)(config, target, form, wanted),
        *_target_problems(config, target, form, serve),
        *slice_problems(config, target, form, wanted),
        *version_problems(target, needs, local_ray),
        *overlay_problems(config, target, form, group, wanted),
    ]
    if found:
        raise PlanError(relocated(found, places))
    return KubePlan(
        form=form,
        kind="CronJob" if form == "cron" and target.queue.scheduler != "none" else _KINDS[form],
        name=name,
        namespace=target.namespace or "default",
        run_id=run_id if form in ("job", "tune") else None,
        account=account,
        makes_account=target.service_account is None,
        labels=_labels(config, target, name),
        annotations=target.annotations,
        head=plan_head(target, admission),
        group=group,
        further=further,
        submitter=plan_submitter(target, admission),
        variables=plan_variables(config, target, serve),
        entrypoint=_entrypoint(form, katib),
        admission=admission,
        serve=serve,
        katib=katib,
        needs=needs,
        target=target,
        config=config if katib is None else katib.config,
        taken=(*taken, *numbers, *accounts(target, account)),
    )


def _target_problems(
    config: RunConfig, target: KubeRay, form: Form, serve: ServePlan | None
) -> Iterator[Problem]:
    """Yield what the keys of the target cannot be together, whatever the pods are."""
    yield from container_problems(config, target, form)
    yield from queue_problems(target, form)
    yield from life_problems(target, form)
    yield from reach_problems(config, target, form, serve)


def _decided(target: KubeRay, wanted: Asked, form: Form) -> KubeRay:
    """Return the target with a decision on the autoscaler, where the config makes none."""
    scaling = target.autoscaling
    if scaling.enabled is not None:
        return target
    # A queue has rules of its own for jobs that grow.
    several = form == "tune" and wanted.least < wanted.most and target.queue.scheduler == "none"
    return target.model_copy(update={"autoscaling": scaling.model_copy(update={"enabled": several})})


def _entrypoint(form: Form, katib: KatibPlan | None) -> tuple[str, ...]:
    if form not in DRIVEN:
        return ()
    module = "raystack.tune" if form == "tune" else "raystack.train"
    point = [text for each in katib.parameters for text in each.overrides] if katib is not None else []
    return ("python", "-m", module, f"{CODE}/config.yaml", *(["--print-metrics", *point] if point else []))


def _labels(config: RunConfig, target: KubeRay, name: str) -> dict[str, str]:
    """Return the user's labels, and those that Kubernetes recommends."""
    return {
        **target.labels,
        "app.kubernetes.io/managed-by": "raystack",
        "app.kubernetes.io/part-of": config.experiment.name,
        "app.kubernetes.io/instance": name,
    }


def _title(config: RunConfig, run_id: str | None, form: Form, named: ServePlan | TunePlan | None) -> str:
    if form in ("job", "tune") and run_id is not None:
        return run_id
    if isinstance(named, ServePlan):
        return named.name
    name = config.experiment.name if named is None else named.name
    return name if name == form or name.endswith(f"-{form}") else f"{name}-{form}"


def _account(config: RunConfig, target: KubeRay, name: str) -> str:
    """Return the name of the pods' account."""
    identity = target.storage.aws_role or target.storage.gcp_service_account
    # A cloud trusts a ServiceAccount by its name, so one with an identity is shared by all runs of the
    # experiment.
    return safe_name(config.experiment.name, 53) if identity else name
