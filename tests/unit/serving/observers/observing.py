"""What tests of observers share: requests as the server tells them, and an HTTP server that notes them."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from raystack.checkpoint.statistics import DataStatistics
from raystack.serving.admission import Admission
from raystack.serving.observers import Observed
from raystack.serving.protocol import Contract, InferRequest, OutputRequest
from raystack.serving.server import Server
from raystack.serving.versions import Model, Version
from raystack.task import Signature, TensorSpec

SIGNATURE = Signature(
    (TensorSpec("x", "float32", (-1, 2)),),
    (TensorSpec("y", "float32", (-1, 1)), TensorSpec("label", "int64", (-1,))),
)


def server(data: DataStatistics | None = None) -> Server:
    """A server with version 3 of the model `demo`."""
    made = Server()
    made.add(Model("demo", Admission(10, 10)))
    made.put(Version(Contract("demo", "3", SIGNATURE), state="ready", data=data))
    return made


def answered(x: Any = ((1.0, 2.0),), label: Any = None, **changes: Any) -> Observed:
    """A request that was answered, with `y` the sum of `x` and a label."""
    rows = np.array(x, np.float32)
    outputs = {
        "y": rows.sum(1, keepdims=True),
        "label": np.zeros(len(rows), np.int64) if label is None else np.array(label),
    }
    request = InferRequest(
        "r1", {"x": rows}, len(rows), (OutputRequest("y", False), OutputRequest("label", False))
    )
    seen = Observed(
        model="demo",
        version="3",
        id="r1",
        protocol="rest",
        request=request,
        outputs=outputs,
        status=200,
        started=1_700_000_000.25,
        wait_s=0.002,
        compute_s=0.004,
        total_s=0.008,
        batch=4,
        trace=None,
        headers=None,
        run="digits-1",
    )
    return seen._replace(**changes)


def failed(status: int = 400, **changes: Any) -> Observed:
    """A request that was refused before it could be read."""
    error = "input 'z': there is none of this name"
    refused = answered(wait_s=0.0, compute_s=0.0, batch=0, error=error)
    return refused._replace(request=None, outputs=None, id=None, status=status)._replace(**changes)


@dataclass
class Post:
    """A request to the noting server."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Noted:
    """What the noting server got, and how it answers."""

    url: str
    posts: list[Post] = field(default_factory=list)
    """Those that were taken."""
    attempts: int = 0
    statuses: list[int] = field(default_factory=list)
    """Answers to the next requests; then 200."""


@contextmanager
def noting() -> Iterator[Noted]:
    """An HTTP server that notes what is posted."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            noted.attempts += 1
            status = noted.statuses.pop(0) if noted.statuses else 200
            if status == 200:
                headers = {name.lower(): value for name, value in self.headers.items()}
                noted.posts.append(Post(self.path, headers, body))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        noted = Noted(f"http://127.0.0.1:{listening.server_address[1]}/events")
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield noted
        listening.shutdown()
        thread.join()


def until(true: Any, within_s: float = 20.0) -> None:
    """Wait until `true()` is."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)
