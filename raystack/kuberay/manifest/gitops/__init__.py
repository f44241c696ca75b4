"""Bundles for Argo CD, Flux and Helm.

In: manifests, their target, and where the bundle lies. Out: text by file name; the same manifests give the
same bytes.

Nobody fights for a field: what Ray's autoscaler sets is left to it, and to nobody else. A job that a changed
one replaces is neither changed nor deleted.
"""

from raystack.kuberay.manifest.gitops.argo import argo
from raystack.kuberay.manifest.gitops.chart import chart
from raystack.kuberay.manifest.gitops.flux import flux
from raystack.kuberay.manifest.gitops.objects import Bundled, bundled, digest

__all__ = ["Bundled", "argo", "bundled", "chart", "digest", "flux"]
