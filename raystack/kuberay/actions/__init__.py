"""Changes of a cluster and checks before them: submit, compare, scale, garbage-collect, doctor."""
