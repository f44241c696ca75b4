"""A gRPC server in a thread of its own, so that Triton's blocking client asks it from the test's."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np

from raystack.errors import Problem, ServingError
from raystack.serving.engine import Answer, Arrays, Engine, ModelEngine
from raystack.serving.grpc.services import offer, services
from raystack.serving.protocol import Contract
from raystack.serving.protocol.tensors import DATATYPES
from raystack.serving.server import Admission, Model, Server, Version
from raystack.task import Signature, TensorSpec

SUM = Signature(
    (TensorSpec("x", "float32", (-1, 2)), TensorSpec("n", "int64", (-1, -1))),
    (TensorSpec("y", "float32", (-1, 1)), TensorSpec("label", "int64", (-1,))),
)
ECHO = Signature(
    tuple(TensorSpec(dtype, dtype, (-1, 2)) for dtype in DATATYPES),
    tuple(TensorSpec(dtype, dtype, (-1, 2)) for dtype in DATATYPES),
)
SLOW_S = 0.5


def add_up(inputs: Arrays) -> Arrays:
    """n -1 is an error of the task's, -2 of raystack's."""
    if (inputs["n"] == -1).any():
        raise ServingError(Problem("task", rule="the task raised: ValueError: a bad sample"))
    if (inputs["n"] == -2).any():
        raise KeyError("a bug of ours")
    return {"y": inputs["x"].sum(1, keepdims=True, dtype=np.float32), "label": inputs["n"][:, 0]}


def add_up_slowly(inputs: Arrays) -> Arrays:
    time.sleep(SLOW_S)
    return add_up(inputs)


class Counting:
    """Answers a request with as many answers as `n` says."""

    signature = Signature((TensorSpec("n", "int64", (-1,)),), (TensorSpec("at", "int64", (-1,)),))
    max_size, decoupled = 1, True

    def __init__(self) -> None:
        self.passes: Mapping[int, Any] = {}

    async def predict(self, inputs: Arrays, size: int) -> Answer:
        return Answer({"at": inputs["n"]}, 0.0, 0.0, size)

    async def stream(self, inputs: Arrays, size: int) -> AsyncGenerator[Arrays, None]:
        for at in range(int(inputs["n"][0])):
            await asyncio.sleep(0.01)
            yield {"at": np.array([at])}

    def close(self) -> None:
        pass


class Running:
    """A Server that is served at `address`."""

    def __init__(self, server: Server, address: str, loop: asyncio.AbstractEventLoop) -> None:
        self.server, self.address, self._loop = server, address, loop

    def ask(self, what: Any) -> Any:
        """Call a function on the server's event loop."""
        answer: Future[Any] = Future()
        self._loop.call_soon_threadsafe(lambda: answer.set_result(what()))
        return answer.result(10)


@contextmanager
def serving(server: Server, own: Mapping[str, Any] | None = None) -> Iterator[Running]:
    """`own` are the services where they differ from the server's."""
    started: Future[Running] = Future()
    stop: Future[None] = Future()

    async def run() -> None:
        grpc_server = grpc.aio.server()
        offer(grpc_server, services(server) if own is None else own)
        port = grpc_server.add_insecure_port("127.0.0.1:0")
        await grpc_server.start()
        started.set_result(Running(server, f"127.0.0.1:{port}", asyncio.get_running_loop()))
        await asyncio.wrap_future(stop)
        await grpc_server.stop(0)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        yield started.result(20)
    finally:
        stop.set_result(None)
        thread.join()


def a_server(
    max_ongoing: int = 4, max_queued: int = 100, *, largest: int | None = None, singles: bool = False
) -> Server:
    """Models `sum`, `slow`, `echo` of all datatypes and `counting`, or one `echo` of each datatype."""
    server = Server()
    server.largest = largest
    engines: dict[str, Engine] = (
        {
            f"echo {spec.name}": ModelEngine(Signature((spec,), (spec,)), lambda inputs: inputs, 8, 0.001)
            for spec in ECHO.inputs
        }
        if singles
        else {
            "sum": ModelEngine(SUM, add_up, 8, 0.001),
            "slow": ModelEngine(SUM, add_up_slowly, 8, 0.001),
            "echo": ModelEngine(ECHO, lambda inputs: inputs, 8, 0.001),
            "counting": Counting(),
        }
    )
    for name, engine in engines.items():
        server.add(Model(name, Admission(max_ongoing, max_queued)))
        server.put(Version(Contract(name, "3", engine.signature), engine, "ready"))
    return server
