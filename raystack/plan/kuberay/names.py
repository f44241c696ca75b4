"""Names for Kubernetes and KubeRay from any text, deterministically."""

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
    "tune": NAME_LIMITS["RayJob"],
    "katib": NAME_LIMITS["RayJob"] - len("-k7zq2x4p"),
}
"""Length limits of the main object's name. Katib names a trial after its experiment, with a suffix."""


def safe_name(text: str, limit: int) -> str:
    """Return a DNS-1035 label of at most `limit` characters.

    The time and token at the end of a run id are kept when it is shortened. Other text that had to be changed
    gets a suffix of six hash digits, so that two texts do not share a name.
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
