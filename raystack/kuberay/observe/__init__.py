"""What runs on a cluster, read and never changed: snapshots, statuses, causes, logs and addresses."""
