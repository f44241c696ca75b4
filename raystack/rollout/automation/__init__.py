"""Training again without a hand.

In: an AutomationPlan, and what happens outside: drift, a schedule, data. Out: rounds, each of which ends with
a served version or the reason why not, and a record of every step. `rounds.py` decides, `loop.py` carries
out, `sources.py` looks, `actions.py` does.
"""
