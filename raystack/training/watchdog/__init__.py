"""The watchdog: workers send heartbeats, and the driver finds the ones that hang or fall behind."""
