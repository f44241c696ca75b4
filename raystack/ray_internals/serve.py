"""Private parts of Ray Serve: the client with the address it listens on, its HAProxy and its gRPC server."""

from collections.abc import Callable
from typing import Any

import ray
from ray._raylet import get_localhost_ip  # type: ignore[attr-defined]
from ray.serve import Deployment
from ray.serve._private import default_impl
from ray.serve._private.common import RUNNING_REQUESTS_KEY
from ray.serve._private.grpc_util import gRPCGenericServer
from ray.serve._private.haproxy import get_haproxy_binary
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatusOverview

REQUESTS: str = RUNNING_REQUESTS_KEY
"""Name of the metric that Serve's own policy of autoscaling goes by: requests of a replica at a time."""

REACHED = ((gRPCGenericServer, ("add_passthrough_service",)), (default_impl, ("add_grpc_address",)))


def client() -> Any | None:
    """Return the client of the Serve that runs on this cluster; None if none does."""
    return _get_global_client(raise_if_no_controller_running=False)


def user_config(application: str, deployment: str) -> Any:
    """Return the settings that a deployment's replicas have been given; None if there is no such one."""
    running = client()
    details = running.get_serve_details() if running is not None else {}
    found = details.get("applications", {}).get(application, {})
    deployed = found.get("deployments", {}).get(deployment, {})
    return deployed.get("deployment_config", {}).get("user_config")


def has_replica(application: ApplicationStatusOverview) -> bool:
    """Whether a replica runs."""
    # The states are text here, and not the enumeration that the type says.
    states = [state for each in application.deployments.values() for state in each.replica_states.items()]
    return any(str(name).endswith("RUNNING") and count for name, count in states)


async def assigned(response: Any) -> None:
    """Wait until a replica has taken a call of a handle."""
    await response._fetch_future_result_async()


def grpc_port(client: Any) -> int | None:
    """Return the port on which a client's Serve listens for gRPC; None if it does not."""
    options = ray.get(client._controller.get_grpc_config.remote())
    port: int = options.port
    return port if options.grpc_servicer_functions else None


def haproxy() -> str | None:
    """Return the path of the HAProxy binary for this machine; None if there is none."""
    try:
        path: str = get_haproxy_binary()
    except FileNotFoundError:
        return None
    return path


def grpc_on_loopback() -> None:
    """Have the gRPC servers that Serve starts in this process from now on listen on the loopback interface.

    Serve has them listen on all, whatever its host is.
    """
    default_impl.add_grpc_address = _add_loopback_address  # type: ignore[assignment]


def _add_loopback_address(server: Any, address: str) -> None:
    server.add_insecure_port(f"{get_localhost_ip()}:{address.rpartition(':')[2]}")


def answer_beneath(server: Any, service: str) -> None:
    """Let a gRPC server of Serve's answer a service with the handlers that it is given next.

    Otherwise it replaces them by its own, which call the deployment.
    """
    server.add_passthrough_service(service)


def versioned(deployment: Deployment, version: str) -> Deployment:
    """Return a deployment whose replicas stay where the running ones have the same version.

    Serve then changes in place what can be changed so. Without one, every deployment replaces all replicas.
    """
    return deployment.options(version=version, _internal=True)


def before_stop(server: Any, told: Callable[[], None]) -> None:
    """Have a gRPC server of Serve's tell that it stops, before it waits for the calls that are open."""
    stop = server.stop

    async def stopping(grace: float | None) -> None:
        told()
        await stop(grace)

    server.stop = stopping
