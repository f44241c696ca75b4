"""TrainPlan or ServePlan -> the kind of KubeRay object that it becomes, and its run."""

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.plan.kuberay import Form
from raystack.plan.serving import ServePlan
from raystack.plan.training import TrainPlan


def form_of(plan: TrainPlan | ServePlan) -> Form:
    """Return the form of a plan: a service, a job, or a periodic job if the target has a schedule."""
    if isinstance(plan, ServePlan):
        return "service"
    target = plan.config.target
    return "cron" if isinstance(target, KubeRay) and target.cron.schedule is not None else "job"


def run_of(plan: TrainPlan | ServePlan) -> str | None:
    """Return the id of a job's run; None for a service or a periodic job."""
    # Each job is a new object; a service or periodic job has a fixed name, so submitting it again changes it.
    return plan.run_id if isinstance(plan, TrainPlan) and form_of(plan) == "job" else None


def forms(config: RunConfig) -> tuple[Form, ...]:
    """Return the forms that a config has all settings for.

    These are a job and a cluster, a service if a model is named, and a periodic job if a schedule is set.
    """
    target = config.target
    served: tuple[Form, ...] = (
        ("service",) if config.serving.model or (config.registry.model and config.registry.alias) else ()
    )
    scheduled: tuple[Form, ...] = (
        ("cron",) if isinstance(target, KubeRay) and target.cron.schedule is not None else ()
    )
    return ("job", *served, "cluster", *scheduled)
