"""Whether a training goes on: workers send heartbeats, the driver finds the ones that hang or fall behind."""
