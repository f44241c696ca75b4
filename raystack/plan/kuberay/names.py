"""Any text -> a name that Kubernetes and KubeRay accept, the same for the same text."""

import hashlib
import re
from collections.abc import Mapping

from raystack.plan.kuberay.facts import NAME_LIMITS
from raystack.plan.kuberay.shape import Form

LIMITS: Mapping[Form, int] = {
    "job": NAME_LIMITS["RayJob"],
    "service": NAME_LIMITS["RayService"],
    "cluster": NAME_LIMITS["RayCluster"],
    "cron": NAME_LIMITS["RayCronJob"],
}
"""Most characters of the main object's name."""


def safe_name(text: str, limit: int) -> str:
    """A DNS-1035 label of at most `limit` characters.

    The time and token at the end of a run id stay whole when it is shortened; other text that had to be
    changed ends in six digits of its hash, so that two texts do not become one name.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if not slug[:1].isalpha():
        slug = f"r-{slug}".rstrip("-")
    clean = slug in (text, f"r-{text}")
    if clean and len(slug) <= limit:
        return slug
    time = re.search(r"-\d{8}-\d{6}-[a-z0-9]+$", slug) if clean else None
    tail = time[0] if time and len(time[0]) < limit else f"-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
    return f"{slug.removesuffix(tail)[: limit - len(tail)].rstrip('-')}{tail}"
