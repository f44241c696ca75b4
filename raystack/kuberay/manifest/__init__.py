"""Manifests for Kubernetes.

In: a KubePlan and the Bundle. Out: manifests of plain JSON values, as YAML or for Kustomize.

Pure and deterministic: the same plan and bundle give the same bytes. The main object comes last, after the
objects it needs.
"""

from raystack.kuberay.manifest.code import bundle_url
from raystack.kuberay.manifest.parts import Manifest
from raystack.kuberay.manifest.render import render, render_rollout
from raystack.kuberay.manifest.text import kustomize, to_yaml

__all__ = ["Manifest", "bundle_url", "kustomize", "render", "render_rollout", "to_yaml"]
