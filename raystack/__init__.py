"""raystack: one typed config trains, tracks, registers and serves a PyTorch model on Ray.

In: a YAML config and a Task (your model, data and loss). Out: an Outcome, on a laptop or on a Ray cluster.
The verbs are modules: ``python -m raystack.train config.yaml``, ``python -m raystack.serve config.yaml``.
"""

__version__ = "0.1.0"
