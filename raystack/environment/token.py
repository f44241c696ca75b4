"""Ray's token: which one there is, and whether a cluster asks for it. In: the environment. Out: what Ray
reads there.

Ray decides once for a process, by the environment alone, whether it uses a token. A driver that has one where
the cluster has none, or none where the cluster asks for it, ends without a reason, so the cluster is asked
before Ray is imported.
"""

import os
import secrets
from pathlib import Path
from typing import Literal

from raystack.environment import folders
from raystack.errors import LaunchError, Problem

FILE = "~/.ray/auth_token"
MOUNTED = tuple(f"/var/run/secrets/{place}/serviceaccount/token" for place in ("ray.io", "kubernetes.io"))
"""The file with a pod's service account token, which is Ray's with RAY_ENABLE_K8S_TOKEN_AUTH."""
MODE = "RAY_AUTH_MODE"
ANSWER_S = 5.0
"""Seconds that a cluster may take to say whether it requires a token."""

Answer = Literal["welcome", "refused", "unknown"]


def found() -> str | None:
    """Return the token that Ray finds, or None.

    In order: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH, the pod's own if Kubernetes checks tokens,
    ~/.ray/auth_token. None also if RAY_AUTH_MODE is `disabled`.
    """
    if os.environ.get(MODE) == "disabled":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    mounted = MOUNTED if os.environ.get("RAY_ENABLE_K8S_TOKEN_AUTH", "").lower() in ("1", "true") else ()
    own = next(filter(os.path.isfile, mounted), FILE)
    file = os.path.expanduser(os.environ.get("RAY_AUTH_TOKEN_PATH") or own)
    if not os.path.isfile(file):  # nor where there is no home, or it may not be entered
        return None
    try:
        return Path(file).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        rule = (
            "the file of Ray's token cannot be read:"
            f" {error.strerror if isinstance(error, OSError) else 'it is no text'}"
        )
        raise LaunchError(
            Problem("token", rule=rule, got=file, remedy="set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH")
        ) from None


def settle_own() -> None:
    """Set the token of a Ray that this process starts.

    Ray writes its token to the home folder. If it cannot, it gets one for this run only.
    """
    if (
        os.environ.get(MODE) != "disabled"
        and "RAY_AUTH_TOKEN_PATH" not in os.environ
        and found() is None
        and not _is_kept()
    ):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _is_kept() -> bool:
    """Return whether Ray can write its token file."""
    folder = os.path.dirname(os.path.expanduser(FILE))
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def settle_joined(address: str) -> None:
    """Set the token for the cluster at `address`, as Ray takes it.

    Raises LaunchError if the cluster would reject this process.
    """
    place, token = _place(address), found()
    without = _ask(place, None)
    if without == "welcome" and os.environ.get(MODE) == "token":
        rule = "the cluster was started without a token, and a driver that has one cannot join it"
        raise LaunchError(Problem(MODE, rule=rule, got="token", remedy="unset it"))
    if without == "refused" and token is None:
        remedy = (
            f"unset {MODE}"
            if os.environ.get(MODE) == "disabled"
            else f"set RAY_AUTH_TOKEN, or leave it in {FILE}"
        )
        raise LaunchError(
            Problem(
                "target.address",
                rule="the cluster asks for a token, and there is none",
                got=place,
                remedy=remedy,
            )
        )
    if without == "refused" and _ask(place, token) == "refused":
        remedy = "give the cluster's own, with RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        raise LaunchError(
            Problem("target.address", rule="the cluster refuses the token", got=place, remedy=remedy)
        )
    if without != "welcome" and token is not None:
        # Ray turns authentication on by itself where it starts a cluster, but not where it joins one.
        os.environ.setdefault(MODE, "token")


def _place(address: str) -> str:
    """Return the address behind `auto`: RAY_ADDRESS, or that of this machine's last `ray start`."""
    if address != "auto":
        return address
    file = Path(folders.ray_folder(), "ray_current_cluster")
    try:
        return os.environ.get("RAY_ADDRESS") or file.read_text(encoding="utf-8").strip()
    except OSError:
        return address


def _ask(place: str, token: str | None) -> Answer:
    """Return the cluster's answer to a request without side effects.

    `unknown` for an address that only Ray can resolve, and with TLS.
    """
    import grpc

    if "://" in place or ":" not in place:
        return "unknown"
    secret = (("authorization", f"Bearer {token}"),) if token is not None else ()
    with grpc.insecure_channel(place, options=(("grpc.enable_http_proxy", 0),)) as channel:  # as Ray itself
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")(
                b"", timeout=ANSWER_S, metadata=secret
            )
        except grpc.RpcError as error:
            return "refused" if error.code() == grpc.StatusCode.UNAUTHENTICATED else "unknown"
    return "welcome"
