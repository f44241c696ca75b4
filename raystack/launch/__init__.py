"""The places where a plan runs. In: a plan. Out: an Outcome.

`local` uses a Ray of its own or the cluster at an address.
"""
