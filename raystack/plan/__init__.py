"""Plans: every decision about a run, made before it starts.

In: a RunConfig. Out: a TrainPlan, TunePlan, ServePlan or PredictPlan, and a KubePlan if it runs on
Kubernetes: frozen, printable, and exactly what is executed. Pure functions: no Ray, torch, MLflow, network,
file or clock. Raises PlanError.
"""

from raystack.plan.kuberay import KubePlan, plan_kuberay
from raystack.plan.prediction import PredictPlan, plan_prediction
from raystack.plan.serving import ServePlan, plan_serving
from raystack.plan.training import TrainPlan, plan_training
from raystack.plan.tuning import TunePlan, plan_tuning

__all__ = [
    "KubePlan",
    "PredictPlan",
    "ServePlan",
    "TrainPlan",
    "TunePlan",
    "plan_kuberay",
    "plan_prediction",
    "plan_serving",
    "plan_training",
    "plan_tuning",
]
