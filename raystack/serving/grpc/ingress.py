"""The services behind Serve's gRPC ingress, whose option `grpc_servicer_functions` names `add_to_server`.

Serve calls that function in every process that has a gRPC server. In a replica, which HAProxy or a client
reaches directly, the services are answered beneath Serve's request path, as HTTP is: the client's deadline
is known, and a request that is refused is no exception in Serve's log. In a proxy of Serve's own, which
stands there without HAProxy, a call goes on to the replica's method by the name of the RPC.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import grpc

from raystack.ray_internals import serve as internals
from raystack.serving.grpc.rpc import Answering, Context, Raw, answered, handlers, rpcs
from raystack.serving.grpc.services import NAMES, REFLECTION, describe, offer, services
from raystack.serving.server import Server

Deployment = TypeVar("Deployment")


class _Here(NamedTuple):
    """What this process, a replica, answers with."""

    server: Server
    loop: asyncio.AbstractEventLoop
    services: Mapping[str, Sequence[Answering]]
    answering: Mapping[str, Answering]


_here: list[_Here] = []
"""Empty in a process without models."""


def answer_here(server: Server, own: Mapping[str, Sequence[Answering]] | None = None) -> None:
    """Answer calls to this process with a Server's models, on the event loop that runs.

    `own` are its services where they differ from the usual ones.
    """
    offered = services(server) if own is None else own
    answering = {each.rpc.name: each for service in offered.values() for each in service}
    _here[:] = [_Here(server, asyncio.get_running_loop(), offered, answering)]


def answering(name: str) -> Answering:
    """Return how this process answers an RPC."""
    return _here[0].answering[name]


def add_to_server(servicer: object, server: grpc.aio.Server) -> None:
    """Add the services to a server of Serve's, which calls this before the server starts."""
    internals.answer_beneath(server, REFLECTION)
    if _here and _here[0].loop is asyncio.get_running_loop():
        for name in NAMES:
            internals.answer_beneath(server, name)
        internals.before_stop(server, _here[0].server.closing.set)
        offer(server, _here[0].services)
        return
    describe(server)
    for name in NAMES:
        server.add_generic_rpc_handlers((handlers(name, answered(name, servicer, lambda: None)),))


def with_rpcs(deployment: type[Deployment]) -> type[Deployment]:
    """Give a class of replicas, which call `answer_here`, a method for each RPC."""
    for service in NAMES:
        for rpc in rpcs(service).values():
            setattr(deployment, rpc.name, (_stream if rpc.streams_out else _unary)(rpc.name))
    return deployment


# Serve sends the methods to the replicas by value, with all that they refer to. What a module has by name,
# such as `answer` and `stream`, is looked up there.
def _unary(name: str) -> Any:
    async def call(self: object, body: bytes, grpc_context: Context) -> Raw:
        return await answer(name, body, grpc_context)

    return call


def _stream(name: str) -> Any:
    async def call(self: object, asked: Any, grpc_context: Context) -> AsyncIterator[Raw]:
        async for body in stream(name, asked, grpc_context):
            yield body

    return call


async def answer(name: str, body: bytes, context: Context) -> Raw:
    """Answer an RPC with one message in this process."""
    return Raw(await answering(name).unary(body, context))


async def stream(name: str, asked: Any, context: Context) -> AsyncIterator[Raw]:
    """Answer an RPC with several messages in this process."""
    async for body in answering(name).stream(asked, context):
        yield Raw(body)
