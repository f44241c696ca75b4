"""TrainPlan -> Outcome on Ray Train. In: a plan and a listener for events. Out: checkpoints, an MLflow run, an Outcome."""

from raystack.training.fit import fit

__all__ = ["fit"]
