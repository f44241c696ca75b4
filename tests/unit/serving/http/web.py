"""A server over HTTP in a thread of its own, so that blocking clients ask it from the test's."""

import asyncio
import socket
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import uvicorn
import uvloop

from raystack.errors import Problem, ServingError
from raystack.serving.endpoint import Endpoint
from raystack.serving.engine import ModelEngine
from raystack.serving.protocol import Contract
from raystack.serving.protocol.tensors import Array
from raystack.serving.rest.body import Limits
from raystack.serving.server import Admission, Model, Server, Version
from raystack.task import Signature, TensorSpec

Result = TypeVar("Result")

SUM = Signature(
    (TensorSpec("x", "float32", (-1, 2)), TensorSpec("n", "int64", (-1, -1))),
    (TensorSpec("y", "float32", (-1, 1)), TensorSpec("label", "int64", (-1,))),
)
GOOD: dict[str, Any] = {
    "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]},
        {"name": "n", "datatype": "INT64", "shape": [2, 1], "data": [5, 6]},
    ]
}


class Sum:
    """Adds up `x`. n -1 is an error of the task's, -2 a bug; 100 and more are milliseconds that it takes."""

    def __init__(self) -> None:
        self.passes: list[int] = []
        """Samples of each pass."""

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.passes.append(len(inputs["x"]))
        if (inputs["n"] == -1).any():
            raise ServingError(Problem("task", rule="the task raised: ValueError: a bad sample"))
        if (inputs["n"] == -2).any():
            raise KeyError("a bug of ours")
        longest = int(inputs["n"].max())
        if longest >= 100:
            time.sleep(longest / 1000)
        return {"y": inputs["x"].sum(1, keepdims=True, dtype=np.float32), "label": inputs["n"][:, 0]}


def sent(n: int, request_id: str | None = None) -> dict[str, Any]:
    """A request of two samples whose `n` are 5 and `n`."""
    body = {"inputs": [GOOD["inputs"][0], {**GOOD["inputs"][1], "data": [5, n]}]}
    return {**body, "id": request_id} if request_id else body


def version(name: str = "3", model: Sum | None = None, state: Any = "ready", max_size: int = 8) -> Version:
    """A version of the model `demo`."""
    engine = ModelEngine(SUM, model or Sum(), max_size, 0.005)
    return Version(Contract("demo", name, SUM), engine, state)


def serving(max_ongoing: int = 8, max_queued: int = 8, timeout_s: float | None = None) -> Server:
    """A server of the model `demo` without a version."""
    server = Server()
    server.add(Model("demo", Admission(max_ongoing, max_queued), timeout_s))
    return server


class Web:
    """A running server."""

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self._loop = loop
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.url = f"http://{self.address}"

    def call(self, function: Any, *arguments: Any) -> Any:
        """Call a function on the server's event loop and return what it returns."""
        done: Future[Any] = Future()

        def run() -> None:
            done.set_result(function(*arguments))

        self._loop.call_soon_threadsafe(run)
        return done.result(60)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the server's event loop and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.port), 60)


@contextmanager
def running(server: Server, limits: Limits = Limits()) -> Iterator[Web]:  # noqa: B008
    """Serve over HTTP on a free port, on the event loop that a replica has."""
    ready: Future[asyncio.AbstractEventLoop] = Future()

    async def serve(listener: socket.socket) -> None:
        ready.set_result(asyncio.get_running_loop())
        await web.serve([listener])

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        web = uvicorn.Server(uvicorn.Config(Endpoint(server, limits), log_level="warning", lifespan="off"))
        thread = threading.Thread(target=uvloop.run, args=(serve(listener),))
        thread.start()
        loop = ready.result(60)
        until = time.monotonic() + 60
        while not web.started:
            assert time.monotonic() < until
            time.sleep(0.01)
        yield Web(loop, listener.getsockname()[1])
        web.should_exit = True
        thread.join()
