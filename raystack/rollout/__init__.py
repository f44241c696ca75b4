"""Versions that change under load, and go back by themselves.

In: a RolloutPlan. Out: a version that answers all requests, or the one from before, and a record of every
decision with its numbers. `start.py` begins one, an actor on the cluster (`actor.py`) takes it on from one
interval to the next (`control.py`), and files on the storage (`store.py`) hold all that it knows.
"""
