"""The runs below `experiment.storage`: the one a driver is for, and the driver that holds it."""
