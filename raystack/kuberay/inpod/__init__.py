"""Commands that run inside pods: a probe, and the creation of a schedule's objects."""
