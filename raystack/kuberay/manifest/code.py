"""How the run's config and code get into the head pod: as a ConfigMap where they are small, else through the
object store.
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
"""Most bytes that travel in a ConfigMap, whose limit is 1 MiB with everything else in it."""
VOLUME = "code"


def bundle_url(plan: KubePlan, bundle: "Bundle") -> str | None:
    """Where the pods fetch the bundle from, and whoever submits has put it; None: it is in a ConfigMap, or
    nothing travels.

    Raises PlanError where it is too large for a ConfigMap and there is no object store.
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
    """The files under keys that a ConfigMap takes."""
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
    """What is no run's keeps its name when its code changes, and a ConfigMap of the same name cannot
    change.
    """
    return f"{plan.name}-code" if plan.run_id is not None else f"{plan.name}-code-{bundle.digest[:8]}"


def keys(files: Mapping[str, bytes]) -> dict[str, str]:
    """path -> key, sorted by path: `task/model.py` -> `task.model.py`, with a hash where two paths would have
    the same.
    """
    found: dict[str, str] = {}
    for path in sorted(files):
        key = re.sub(r"[^-._A-Za-z0-9]", "_", path.replace("/", "."))
        if key in found.values() or len(key) > 253:
            key = f"{key[:200]}.{hashlib.sha256(path.encode()).hexdigest()[:8]}"
        found[path] = key
    return found


def volume(plan: KubePlan, bundle: "Bundle") -> dict[str, Any]:
    """The volume that is mounted at /etc/raystack."""
    if bundle_url(plan, bundle) is not None:
        return {"name": VOLUME, "emptyDir": {}}
    items = [{"key": key, "path": path} for path, key in keys(bundle.files).items()]
    return {"name": VOLUME, "configMap": {"name": name_of(plan, bundle), "items": items}}


def mount(*, writable: bool = False) -> dict[str, Any]:
    return {"name": VOLUME, "mountPath": CODE, **({} if writable else {"readOnly": True})}


def fetch_command(url: str) -> list[str]:
    """What fills the volume before the head starts."""
    return ["python", "-m", "raystack.code.bundle", "fetch", url, CODE]
