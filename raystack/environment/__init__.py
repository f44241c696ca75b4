"""The environment variables that Ray and other libraries read: folders, and the token of a cluster."""
