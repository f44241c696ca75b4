"""A plan -> the kind of KubeRay object that it becomes, and its run."""

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.plan.kuberay import Form
from raystack.plan.prediction import PredictPlan
from raystack.plan.serving import ServePlan, all_models
from raystack.plan.training import TrainPlan
from raystack.plan.tuning import TunePlan


def form_of(plan: TrainPlan | TunePlan | ServePlan) -> Form:
    """Return the form of a plan; that of a training is a periodic job if the target has a schedule."""
    if isinstance(plan, ServePlan):
        return "service"
    if isinstance(plan, TunePlan):
        return "tune"
    target = plan.config.target
    return "cron" if isinstance(target, KubeRay) and target.cron.schedule is not None else "job"


def run_of(plan: TrainPlan | TunePlan | ServePlan | PredictPlan) -> str | None:
    """Return the id of a job's run or of a study's start; None for a service or a periodic job."""
    # Each job is a new object; a service or periodic job has a fixed name, so submitting it again changes it.
    if isinstance(plan, ServePlan) or (not isinstance(plan, PredictPlan) and form_of(plan) == "cron"):
        return None
    return plan.run_id


def module_of(plan: TrainPlan | TunePlan | PredictPlan) -> str:
    """Return the Python module that is the plan's driver."""
    modules = {TunePlan: "raystack.tune", PredictPlan: "raystack.predict"}
    return modules.get(type(plan), "raystack.train")


def forms(config: RunConfig) -> tuple[Form, ...]:
    """Return the forms that a config has all settings for.

    These are a job and a cluster, a service if a model is named, a periodic job if a schedule is set, and a
    study if there is a space.
    """
    target = config.target
    served: tuple[Form, ...] = (
        ("service",)
        if config.serving.model
        or config.serving.graph
        or all_models(config.serving)
        or (config.registry.model and config.registry.alias)
        else ()
    )
    scheduled: tuple[Form, ...] = (
        ("cron",) if isinstance(target, KubeRay) and target.cron.schedule is not None else ()
    )
    searched: tuple[Form, ...] = ("tune",) if config.tuning is not None and config.tuning.space else ()
    return ("job", *served, "cluster", *scheduled, *searched)
