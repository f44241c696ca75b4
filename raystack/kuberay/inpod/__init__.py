"""Commands that run inside the pods: a probe, and the one that creates the objects of a schedule."""
