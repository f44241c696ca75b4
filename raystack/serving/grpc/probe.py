"""Whether a server answers over gRPC."""

from pathlib import Path

import grpc

from raystack.config.access import Tls
from raystack.serving.certificate import covers
from raystack.serving.grpc.messages import message_class
from raystack.serving.grpc.servicer import SERVICE

ANSWER_S = 5.0


def is_ready(address: str, tls: Tls | None = None) -> bool:
    """Ask the server at `host:port` whether all its models answer. False if it cannot be asked."""
    with _channel(address, tls) as channel:
        call = channel.unary_unary(f"/{SERVICE}/ServerReady")
        try:
            answer = message_class("inference.ServerReadyResponse").FromString(call(b"", timeout=ANSWER_S))
        except grpc.RpcError:
            return False
    ready: bool = answer.ready
    return ready


def _channel(address: str, tls: Tls | None) -> grpc.Channel:
    options: list[tuple[str, int | str]] = [("grpc.enable_http_proxy", 0)]
    if tls is None:
        return grpc.insecure_channel(address, options)
    covered, name = covers(tls, address.rpartition(":")[0].strip("[]"))
    if not covered and name is not None:
        options.append(("grpc.ssl_target_name_override", name))
    trusted = grpc.ssl_channel_credentials(Path(tls.certificate).read_bytes())
    return grpc.secure_channel(address, trusted, options)
