"""TrainPlan or ServePlan -> which object of KubeRay it becomes, and of which run."""

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.plan.kuberay import Form
from raystack.plan.serving import ServePlan
from raystack.plan.training import TrainPlan


def form_of(plan: TrainPlan | ServePlan) -> Form:
    """What is served is a service; what is trained is a job, or periodic where the target has a schedule."""
    if isinstance(plan, ServePlan):
        return "service"
    target = plan.config.target
    return "cron" if isinstance(target, KubeRay) and target.cron.schedule is not None else "job"


def run_of(plan: TrainPlan | ServePlan) -> str | None:
    """The run that a job is for, a new one each time; None for what stays, so that submitting it again
    changes it.
    """
    return plan.run_id if isinstance(plan, TrainPlan) and form_of(plan) == "job" else None


def forms(config: RunConfig) -> tuple[Form, ...]:
    """What a config has enough for: a job and a cluster; a service where a model is served; a periodic job
    where one is scheduled.
    """
    target = config.target
    served: tuple[Form, ...] = (
        ("service",) if config.serving.model or (config.registry.model and config.registry.alias) else ()
    )
    scheduled: tuple[Form, ...] = (
        ("cron",) if isinstance(target, KubeRay) and target.cron.schedule is not None else ()
    )
    return ("job", *served, "cluster", *scheduled)
