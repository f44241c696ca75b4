"""What a step of a model costs, measured before the training: memory by kind, and floating point
operations.
"""
