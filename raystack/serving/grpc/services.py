"""A Server's services on a gRPC server: inference, health and reflection."""

from collections.abc import Mapping

import grpc
from grpc_reflection.v1alpha import reflection

from raystack.serving.grpc.health import SERVICE as HEALTH
from raystack.serving.grpc.health import Health
from raystack.serving.grpc.messages import POOL
from raystack.serving.grpc.rpc import handlers
from raystack.serving.grpc.servicer import SERVICE as INFERENCE
from raystack.serving.grpc.servicer import Servicer
from raystack.serving.server import Server

NAMES = (INFERENCE, HEALTH)
REFLECTION: str = reflection.SERVICE_NAME


def services(server: Server) -> Mapping[str, object]:
    """Return the objects that answer the services' RPCs, by the services' names."""
    return {INFERENCE: Servicer(server), HEALTH: Health(server)}


def add(to: grpc.aio.Server, server: Server, largest: int | None = None) -> None:
    """Answer the services' RPCs on a gRPC server that is not started yet.

    `largest` is the maximum size of a message in bytes, in and out.
    """
    for name, servicer in services(server).items():
        to.add_generic_rpc_handlers((handlers(name, servicer, largest),))
    # Serve's own reflection looks in the default descriptor pool, which has none of these messages.
    reflection.enable_server_reflection((*NAMES, REFLECTION), to, POOL)
