"""Kubernetes, through KubeRay. In: a KubePlan and a Bundle, or the name of something that runs. Out: manifests, objects, a Status.

`manifest` renders and `lint` judges, both without a cluster; `client` is the one door to the API, and everything that reads or
changes a cluster goes through it.
"""
