"""A graph of models and functions that answers as one model."""
