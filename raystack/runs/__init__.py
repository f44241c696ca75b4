"""A run as it lies below `experiment.storage`: which one a driver is for, and which driver holds it."""
