"""HAProxy as Ray configures it."""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LONGEST_S = 30.0


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + LONGEST_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Whether something listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def written(tmp_path: Path, backends: list[Any], *, grpc: bool = False) -> tuple[Path, int]:
    """A config as Ray writes it, and the port of its HTTP."""
    from ray.serve._private.haproxy import HAProxyApi, HAProxyConfig
    from ray.serve.config import HTTPOptions, gRPCOptions

    port, file = free_port(), tmp_path / "haproxy.cfg"
    services = ["raystack.serving.grpc.ingress:add_to_server"] if grpc else []
    api = HAProxyApi(
        HAProxyConfig(
            http_options=HTTPOptions(host="127.0.0.1", port=port),
            socket_path=str(tmp_path / "admin.sock"),
            server_state_base=str(tmp_path),
            server_state_file=str(tmp_path / "state"),
            metrics_socket_path=str(tmp_path / "metrics.sock"),
            is_head=True,
            grpc_options=gRPCOptions(port=free_port(), grpc_servicer_functions=services),
        ),
        config_file_path=str(file),
    )
    api.set_backend_configs({backend.name: backend for backend in backends})
    api._generate_config_file_internal()
    return file, port
