"""From an alias in MLflow to traffic: a version that the alias comes to point to is rolled out.

In: a FollowPlan. Out: rollouts. `webhook.py` listens, `deliveries.py` decides what is genuine, `watch.py`
reads the alias and begins.
"""
