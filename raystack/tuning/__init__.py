"""Search over a config with Ray Tune. In: a TunePlan. Out: a study, whose best config `raystack train` takes.

Ray Tune decides which trial runs where, and its schedulers when one is stopped; what is suggested, recorded
and shown is decided here.
"""
