"""TrainPlan -> Outcome on Ray Train.

In: a plan and a listener for events. Out: checkpoints, an MLflow run, an Outcome. The entry point is
`raystack.training.driver.fit.fit`. This file imports nothing, because Ray imports it in processes that do not
need PyTorch.
"""
