"""TrainPlan or ServePlan -> which object of KubeRay it becomes, and from which run it has its name."""

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


def name_of(plan: TrainPlan | ServePlan) -> str:
    """A job is a run's, and a new one each time; what stays has the experiment's name, so that submitting it again changes it."""
    return plan.run_id if isinstance(plan, TrainPlan) and form_of(plan) == "job" else plan.config.experiment.name
