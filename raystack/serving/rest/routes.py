"""Which path asks for what.

    GET  /v2                                        server metadata
    GET  /v2/health/live  /v2/health/ready
    GET  /v2/models                                 names
    GET  /v2/models/{name}[/versions/{v}]           model metadata, from the signature
    GET  /v2/models/{name}[/versions/{v}]/ready
    GET  /v2/models/{name}[/versions/{v}]/config
    GET  /v2/models/{name}[/versions/{v}]/stats     and /v2/models/stats
    POST /v2/models/{name}[/versions/{v}]/infer
    POST /v2/repository/index
    POST /v2/repository/models/{name}/load          and unload
    GET, POST /v2/trace/setting                     and /v2/models/{name}/trace/setting
    GET, POST /v2/logging
    GET  /v1/models
    GET  /v1/models/{name}[/versions/{v}]
    POST /v1/models/{name}[/versions/{v}]:predict
    GET  /

HEAD is answered where GET is.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

GET, POST, BOTH = ("GET", "HEAD"), ("POST",), ("GET", "HEAD", "POST")
LONGEST = 1024
"""Length of a path in characters. A longer one is none of ours."""


class Route(NamedTuple):
    """What a path asks for."""

    action: str
    methods: tuple[str, ...] = GET
    model: str = ""
    version: str | None = None
    """None where the path names no version."""


_SERVER: Mapping[tuple[str, ...], Route] = {
    (): Route("alive"),
    ("v2",): Route("server"),
    ("v2", "health", "live"): Route("live"),
    ("v2", "health", "ready"): Route("server ready"),
    ("v2", "models"): Route("models"),
    ("v2", "models", "stats"): Route("stats"),
    ("v2", "repository", "index"): Route("index", POST),
    ("v2", "trace", "setting"): Route("trace", BOTH),
    ("v2", "logging"): Route("logging", BOTH),
    ("v1", "models"): Route("models"),
}
_MODEL: Mapping[tuple[str, ...], Route] = {
    (): Route("metadata"),
    ("ready",): Route("ready"),
    ("config",): Route("config"),
    ("stats",): Route("stats"),
    ("infer",): Route("infer", POST),
}
_V1: Mapping[str, Route] = {"": Route("v1 status"), "predict": Route("predict", POST)}


def route(path: str, raw_path: bytes) -> Route | None:
    """Return what a path asks for; None if there is no such path.

    `raw_path` is the path as it was sent: a slash that is encoded there is part of a name.
    """
    if len(path) > LONGEST or len(raw_path) > 3 * LONGEST:
        return None
    return _route(raw_path.decode("latin-1"), True) if b"%" in raw_path else _route(path, False)


@lru_cache(1024)
def _route(path: str, encoded: bool) -> Route | None:
    segments = tuple(path.strip("/").split("/")) if path.strip("/") else ()
    if encoded:
        segments = tuple(unquote(segment) for segment in segments)
    if segments in _SERVER:
        return _SERVER[segments]
    match segments:
        case ("v2", "models", name, "versions", version, *rest):
            return _of(_MODEL.get(tuple(rest)), name, version)
        case ("v2", "models", name, "trace", "setting"):
            return Route("trace", BOTH, name)
        case ("v2", "models", name, *rest):
            return _of(_MODEL.get(tuple(rest)), name, None)
        case ("v2", "repository", "models", name, "load" | "unload" as action):
            return Route(action, POST, name)
        case ("v2", "systemsharedmemory" | "cudasharedmemory", *_):
            return Route("shared memory", BOTH)
        case ("v1", "models", last):
            name, _, verb = last.partition(":")
            return _of(_V1.get(verb), name, None)
        case ("v1", "models", name, "versions", last):
            version, _, verb = last.partition(":")
            return _of(_V1.get(verb), name, version)
    return None


def _of(route: Route | None, model: str, version: str | None) -> Route | None:
    return route._replace(model=model, version=version) if route and model else None
