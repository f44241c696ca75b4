"""The one door to a Kubernetes cluster: a client, the kinds of objects that it knows, and ports that it
forwards.
"""
