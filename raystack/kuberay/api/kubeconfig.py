"""Kubeconfig files: which are read, and the namespace of a context.

In: a path and the name of a context, or None for what kubectl would take. Out: paths, a namespace. It does
without the package kubernetes, which takes long to import.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from raystack.errors import LaunchError, Problem, nearest

IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Namespace of a pod with a service account."""
DEFAULT = "default"


def places(kubeconfig: str | None) -> list[str]:
    """Return the files that may exist, by default those of KUBECONFIG or ~/.kube/config."""
    named = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    return [os.path.expanduser(place) for place in named.split(os.pathsep) if place]


def namespace(kubeconfig: str | None = None, context: str | None = None) -> str:
    """Return the namespace that kubectl would use: that of the context, of this pod, or `default`.

    A file that cannot be read counts as empty, because connecting reports it. Raises LaunchError for a
    `kubeconfig` or a `context` that is not there: another namespace would be meant.
    """
    if kubeconfig is not None and not any(map(os.path.isfile, places(kubeconfig))):
        remedy = "set target.kubeconfig, --kubeconfig or KUBECONFIG"
        raise LaunchError(Problem("kubeconfig", rule="there is no such file", got=kubeconfig, remedy=remedy))
    files = list(_read(kubeconfig))
    if not files and kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        with suppress(OSError):
            return IN_POD.read_text(encoding="utf-8").strip() or DEFAULT
    # Of several files the first that says something counts, as for kubectl.
    chosen = context or next((name for file in files if (name := file.get("current-context"))), None)
    contexts = [each for file in files for each in file.get("contexts") or () if isinstance(each, dict)]
    found = next((each for each in contexts if each.get("name") == chosen), None)
    if found is None and context is not None and files:
        names = [str(each.get("name")) for each in contexts]
        close = nearest(context, names)
        remedy = f"did you mean {close}?" if close else f"it has {', '.join(names) or 'none'}"
        raise LaunchError(
            Problem("context", rule="the kubeconfig has none of that name", got=context, remedy=remedy)
        )
    return str(((found or {}).get("context") or {}).get("namespace") or DEFAULT)


def _read(kubeconfig: str | None) -> Iterator[dict[str, Any]]:
    for place in places(kubeconfig):
        with suppress(OSError, ValueError, yaml.YAMLError):
            content = yaml.safe_load(Path(place).read_text(encoding="utf-8"))
            if isinstance(content, dict):
                yield content
