"""Private parts of Ray Core: draining nodes, free resources by node, prestarted processes."""

from collections.abc import Collection, Mapping
from typing import Any

import ray
from ray._private import ray_constants, state
from ray._private.grpc_utils import init_grpc_channel
from ray._private.worker import get_dashboard_url, global_worker
from ray.core.generated import common_pb2, node_manager_pb2, node_manager_pb2_grpc, runtime_environment_pb2

SETUP_HOOK: str = ray_constants.WORKER_PROCESS_SETUP_HOOK_ENV_VAR
"""Variable of a runtime environment with the function that each of its processes runs when it starts."""
HEAD = "node:__internal_head__"
"""A resource that only the head node has."""

REACHED = (
    (global_worker, ("node", "core_worker")),
    (state.state, ("get_draining_nodes",)),
    (common_pb2, ("PYTHON",)),
    (node_manager_pb2, ("PrestartWorkersRequest",)),
    (node_manager_pb2_grpc, ("NodeManagerServiceStub",)),
    (runtime_environment_pb2, ("RuntimeEnvInfo",)),
)
"""The attributes used of what is imported here, for the contract test."""


def has_dashboard() -> bool:
    """Return whether the cluster that this process is connected to has a dashboard."""
    return bool(get_dashboard_url())


def draining_nodes() -> Collection[str]:
    """Return the ids of the nodes that are about to go away."""
    found: Collection[str] = state.state.get_draining_nodes()
    return found


def available_by_node() -> Mapping[str, Mapping[str, float]]:
    """Return the free resources, by node id and resource name."""
    # The public ray.available_resources() has the sum over all nodes only.
    found: Mapping[str, Mapping[str, float]] = state.available_resources_per_node()
    return found


def prestart_worker(*, keep_s: int, timeout_s: float) -> None:
    """Have this worker's node start a process of the same environment, for the next actor or task.

    The process is kept for `keep_s` seconds; the request takes at most `timeout_s`.
    """
    # `Any`, because Ray's generated modules have no types.
    worker: Any = global_worker
    messages: Any = node_manager_pb2
    services: Any = node_manager_pb2_grpc
    environments: Any = runtime_environment_pb2
    languages: Any = common_pb2
    channel = init_grpc_channel(f"{worker.node.node_ip_address}:{worker.node.node_manager_port}")
    request = messages.PrestartWorkersRequest(
        language=languages.PYTHON,
        job_id=bytes.fromhex(ray.get_runtime_context().get_job_id()),
        runtime_env_info=environments.RuntimeEnvInfo(
            # The very string of this worker: an actor gets a prestarted process only if the two are equal.
            serialized_runtime_env=worker.core_worker.get_current_runtime_env()
        ),
        keep_alive_duration_secs=keep_s,
        num_workers=1,
    )
    services.NodeManagerServiceStub(channel).PrestartWorkers(request, timeout=timeout_s)
