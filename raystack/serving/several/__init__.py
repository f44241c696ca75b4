"""A server of several models: each has an application of its own, beside one that answers for the server.

HAProxy leads requests for a model straight to its replicas, by their path. What has no such path reaches the
gateway: what is asked of the server itself, and what names its model elsewhere than in the path, as calls
over gRPC do. The gateway answers the first and hands on the second, through Serve's handles.
"""
