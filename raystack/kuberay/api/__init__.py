"""Access to a Kubernetes cluster: the client, the kinds of objects it knows, and forwarded ports."""
