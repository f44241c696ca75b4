"""Kubernetes, through KubeRay. In: a KubePlan and a Bundle, or the name of something that runs. Out:
manifests, objects, a Status.

A folder for each activity: `api` is the one door to a cluster, `manifest` renders, `lint` judges without a
cluster, `observe` reads what runs, `actions` change it, and `inpod` runs in the pods themselves.
"""
