"""What was decided. In: a RunConfig. Out: a TrainPlan or ServePlan, frozen, printable, and what is then executed.

Pure functions: no Ray, torch, MLflow, network, file or clock. Raises PlanError.
"""

from raystack.plan.serving import ServePlan, plan_serving
from raystack.plan.training import TrainPlan, plan_training

__all__ = ["ServePlan", "TrainPlan", "plan_serving", "plan_training"]
