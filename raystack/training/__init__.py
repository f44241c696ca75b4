"""TrainPlan -> Outcome on Ray Train. In: a plan and a listener for events. Out: checkpoints, an MLflow run,
an Outcome.

The door is `raystack.training.driver.fit.fit`. This file imports nothing: Ray imports it in processes that
have no use for PyTorch.
"""
