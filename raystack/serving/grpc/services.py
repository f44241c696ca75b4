"""A Server's services on a gRPC server: inference, health and reflection."""

from collections.abc import Mapping, Sequence

import grpc
from grpc_reflection.v1alpha import reflection

from raystack.serving.grpc.health import SERVICE as HEALTH
from raystack.serving.grpc.health import Health
from raystack.serving.grpc.messages import POOL
from raystack.serving.grpc.rpc import Answering, answered, handlers
from raystack.serving.grpc.servicer import SERVICE as INFERENCE
from raystack.serving.grpc.servicer import Servicer
from raystack.serving.server import Server

NAMES = (INFERENCE, HEALTH)
REFLECTION: str = reflection.SERVICE_NAME


def services(server: Server) -> Mapping[str, Sequence[Answering]]:
    """Return how the services' RPCs are answered, by the services' names."""
    servicers = {INFERENCE: Servicer(server), HEALTH: Health(server)}
    return {name: answered(name, servicer, lambda: server.largest) for name, servicer in servicers.items()}


def add(to: grpc.aio.Server, server: Server) -> None:
    """Answer the services' RPCs with a server's models, on a gRPC server that is not started yet."""
    offer(to, services(server))


def offer(to: grpc.aio.Server, services: Mapping[str, Sequence[Answering]]) -> None:
    """Answer the RPCs of services on a gRPC server that is not started yet."""
    for name, answering in services.items():
        to.add_generic_rpc_handlers((handlers(name, answering),))
    describe(to)


def describe(to: grpc.aio.Server) -> None:
    """Describe the services to clients that ask a gRPC server for its own description."""
    # Serve's own reflection looks in the default descriptor pool, which has none of these messages.
    reflection.enable_server_reflection((*NAMES, REFLECTION), to, POOL)
