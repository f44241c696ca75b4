"""Where a plan runs. In: a plan. Out: an Outcome. `local` runs it on a Ray of its own or on the cluster at an
address.
"""
