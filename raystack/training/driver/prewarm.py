"""A warm process beside every worker, so that a restart waits for no interpreter and no import.

Ray hands a process that was started ahead, with the right environment, to the next actor. A worker that has
trained for a while has its node start one, and a hook in that environment has every such process import what
training imports. That is most of the time from the loss of a worker to the next step
(benchmarks/recovery.py). Ray has no public call for it; its version is pinned.
"""

import importlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import common_pb2, node_manager_pb2, node_manager_pb2_grpc, runtime_environment_pb2

AFTER_S = 20.0
"""A short run, and the first steps of a long one, are left alone: the imports take seconds of a core."""
KEEP_S = 30 * 24 * 3600
TIMEOUT_S = 10.0

IMPORTS = "RAYSTACK_IMPORTS"
"""Modules, separated by commas, that a process of this environment imports when it starts."""
ALWAYS = (
    "ray.train.v2._internal.execution.worker_group.worker",
    "ray.train.v2._internal.callbacks",
    "raystack.training.driver.run",
)
TO_GO_ON = "raystack.checkpoint.sharded"
"""Reads a checkpoint. It takes a second to import, for which a run's first step need not wait."""
BEGAN = "RAYSTACK_BEGAN"
"""When the run began, in seconds since 1970."""


def environment(*modules: str) -> Mapping[str, str]:
    """What a worker's processes start with, so that they import `modules` beside what every training
    needs.
    """
    hook = f"{__name__}.{preload.__name__}"
    began = f"{time.time():.0f}"
    return {
        ray_constants.WORKER_PROCESS_SETUP_HOOK_ENV_VAR: hook,
        IMPORTS: ",".join((*ALWAYS, *modules)),
        BEGAN: began,
    }


def preload() -> None:
    """Run by Ray in each new process of the environment, before it takes work."""
    names = os.environ[IMPORTS].split(",")
    if time.time() - float(os.environ[BEGAN]) > AFTER_S:
        names.append(TO_GO_ON)
    for name in names:
        # What is missing is told where it is needed.
        with suppress(ImportError):
            importlib.import_module(name)


@contextmanager
def warmed() -> Iterator[None]:
    """Have a spare for this worker on its node, once the block has lasted a while."""
    timer = threading.Timer(AFTER_S, _start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _start() -> None:
    worker: Any = ray._private.worker.global_worker
    messages: Any = node_manager_pb2
    services: Any = node_manager_pb2_grpc
    environments: Any = runtime_environment_pb2
    languages: Any = common_pb2
    channel = init_grpc_channel(f"{worker.node.node_ip_address}:{worker.node.node_manager_port}")
    request = messages.PrestartWorkersRequest(
        language=languages.PYTHON,
        job_id=bytes.fromhex(ray.get_runtime_context().get_job_id()),
        runtime_env_info=environments.RuntimeEnvInfo(
            serialized_runtime_env=worker.core_worker.get_current_runtime_env()
        ),
        keep_alive_duration_secs=KEEP_S,
        num_workers=1,
    )
    services.NodeManagerServiceStub(channel).PrestartWorkers(request, timeout=TIMEOUT_S)
