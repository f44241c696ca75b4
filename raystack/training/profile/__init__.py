"""Measurement of a model's memory, before the training."""
