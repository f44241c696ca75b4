"""Read-only view of what runs on a cluster: snapshots, statuses, causes, logs and addresses."""
