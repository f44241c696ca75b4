"""What changes a cluster, and what has to be known before: submit, compare, scale, collect garbage, check."""
