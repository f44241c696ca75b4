"""What Ray and other libraries read from a process's environment: folders, and the token of a cluster."""
