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
OPEN = ("ServerLive", "ServerReady", "ModelReady")
"""RPCs of inference for everybody, as those of health are: probes have no token."""
REFLECTION: str = reflection.SERVICE_NAME


def services(server: Server) -> Mapping[str, Sequence[Answering]]:
    """Return how the services' RPCs are answered, by the services' names."""
    largest, guard = lambda: server.largest, lambda: server.guard
    inference = answered(INFERENCE, Servicer(server), largest)
    guarded = [each if each.rpc.name in OPEN else each._replace(guard=guard) for each in inference]
    return {INFERENCE: guarded, HEALTH: answered(HEALTH, Health(server), largest)}


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
