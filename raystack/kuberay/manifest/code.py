"""Delivery of the run's config and code to the head pod.

Small bundles travel as a ConfigMap, larger ones through the object store.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raystack.errors import PlanError, Problem
from raystack.kuberay.manifest.parts import Manifest, manifest
from raystack.plan import KubePlan
from raystack.plan.kuberay.connectivity import CODE

if TYPE_CHECKING:
    from raystack.code.bundle import Bundle

LIMIT = 900 * 1024
"""Largest bundle that travels in a ConfigMap, whose limit of 1 MiB includes its metadata."""
VOLUME = "code"


def bundle_url(plan: KubePlan, bundle: "Bundle") -> str | None:
    """Return the URL from which the pods fetch the bundle, or None if they need not.

    None if the bundle is in a ConfigMap or nothing travels. The submitting side has to upload the bundle.
    Raises PlanError if it is too large for a ConfigMap and there is no object store.
    """
    if not plan.entrypoint or (bundle.size <= LIMIT and not plan.target.queue.multikueue):
        return None
    storage = plan.config.experiment.storage
    if "://" not in storage:
        why = (
            "another cluster has no ConfigMap of this one"
            if plan.target.queue.multikueue
            else f"a ConfigMap holds {LIMIT // 1024} KiB"
        )
        remedy = "set experiment.storage to an object store's URL, or task.folder to a folder with less in it"
        got = f"{bundle.size // 1024} KiB"
        raise PlanError(
            Problem("task.folder", rule=f"travels with the run, and {why}", got=got, remedy=remedy)
        )
    return f"{storage}/bundles/{bundle.digest}.tar"


def config_map(plan: KubePlan, bundle: "Bundle") -> Manifest:
    """Return a ConfigMap with the files under valid keys."""
    text: dict[str, str] = {}
    binary: dict[str, str] = {}
    for path, key in keys(bundle.files).items():
        content = bundle.files[path]
        try:
            text[key] = content.decode("utf-8")
        except UnicodeDecodeError:
            binary[key] = base64.b64encode(content).decode("ascii")
    content_of = {**({"data": text} if text else {}), **({"binaryData": binary} if binary else {})}
    digest = {"raystack/digest": bundle.digest}
    return manifest(
        plan, "v1", "ConfigMap", name_of(plan, bundle), annotations=digest, immutable=True, **content_of
    )


def name_of(plan: KubePlan, bundle: "Bundle") -> str:
    """Return the ConfigMap's name, with a digest for objects that are not a single run."""
    # An immutable ConfigMap cannot change, and an object applied again keeps its name while its code changes.
    return f"{plan.name}-code" if plan.run_id is not None else f"{plan.name}-code-{bundle.digest[:8]}"


def keys(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return keys by path, sorted by path, e.g. `task/model.py` -> `task.model.py`.

    Keys that would collide or be too long get a hash.
    """
    found: dict[str, str] = {}
    for path in sorted(files):
        key = re.sub(r"[^-._A-Za-z0-9]", "_", path.replace("/", "."))
        if key in found.values() or len(key) > 253:
            key = f"{key[:200]}.{hashlib.sha256(path.encode()).hexdigest()[:8]}"
        found[path] = key
    return found


def volume(plan: KubePlan, bundle: "Bundle") -> dict[str, Any]:
    """Return the volume that is mounted at /etc/raystack."""
    if bundle_url(plan, bundle) is not None:
        return {"name": VOLUME, "emptyDir": {}}
    items = [{"key": key, "path": path} for path, key in keys(bundle.files).items()]
    return {"name": VOLUME, "configMap": {"name": name_of(plan, bundle), "items": items}}


def mount(*, writable: bool = False) -> dict[str, Any]:
    return {"name": VOLUME, "mountPath": CODE, **({} if writable else {"readOnly": True})}


def fetch_command(url: str) -> list[str]:
    """Return the command that fills the volume before the head starts."""
    return ["python", "-m", "raystack.code.bundle", "fetch", url, CODE]
