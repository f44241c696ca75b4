"""What Ray Serve has no public call for: the address that it listens on, and whether it has HAProxy."""

from typing import Any

from ray.serve._private.haproxy import get_haproxy_binary
from ray.serve.context import _get_global_client


def client() -> Any | None:
    """Of the Serve that runs on this cluster; None where none does."""
    return _get_global_client(raise_if_no_controller_running=False)


def has_haproxy() -> bool:
    """Whether there is a binary for this machine."""
    try:
        get_haproxy_binary()
    except FileNotFoundError:
        return False
    return True
