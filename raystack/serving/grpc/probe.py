"""Whether a server answers over gRPC."""

import grpc

from raystack.serving.grpc.messages import message_class
from raystack.serving.grpc.servicer import SERVICE

ANSWER_S = 5.0


def is_ready(address: str) -> bool:
    """Ask the server at `host:port` whether all its models answer. False if it cannot be asked."""
    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        call = channel.unary_unary(f"/{SERVICE}/ServerReady")
        try:
            answer = message_class("inference.ServerReadyResponse").FromString(call(b"", timeout=ANSWER_S))
        except grpc.RpcError:
            return False
    ready: bool = answer.ready
    return ready
