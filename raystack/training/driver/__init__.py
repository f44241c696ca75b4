"""The driver of a training: it starts the workers, recovers from failures and keeps the record."""
