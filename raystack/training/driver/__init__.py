"""The driver of a training: it starts the workers, coordinates them, recovers from failures and keeps the
record.
"""
