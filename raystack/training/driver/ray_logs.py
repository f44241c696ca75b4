"""Logs of a run's processes on all nodes, kept in its folder before the cluster goes.

In: the Ray cluster that this driver is connected to. Out: `kept/<host>/<file>` for the workers of this job.
Through Ray's own log API, which knows every node, so that no right of Kubernetes is needed.
"""

import time
from collections.abc import Iterator

import ray
from ray.exceptions import RayError
from ray.util.state import get_log, list_logs
from ray.util.state.exception import RayStateApiException

from raystack.errors import RaystackError
from raystack.runs import kept

ANSWER_S = 5
"""Seconds for an answer of the log API."""
MOST_LINES = 20_000
"""Last lines that are kept of each log."""


def keep(folder: str, seconds: float) -> str | None:
    """Keep the logs in a run's folder; return why some could not be kept, in one line.

    No log is begun after `seconds`.
    """
    deadline, why = time.monotonic() + seconds, None
    try:
        for node in ray.nodes():
            if not node["Alive"]:
                continue
            for source, name in _logs(node):
                if time.monotonic() > deadline:
                    return f"logs of the cluster were kept only in part: it took more than {seconds:.0f} s"
                lines = get_log(
                    node_id=node["NodeID"],
                    filename=source,
                    tail=MOST_LINES,
                    timeout=ANSWER_S,
                    errors="replace",
                )
                kept.write(folder, name, "".join(lines).splitlines())
    except (RayStateApiException, RayError, RaystackError, OSError, ValueError, RuntimeError) as error:
        why = f"logs of the cluster could not be kept: {str(error).splitlines()[0]}"
    return why


def _logs(node: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the logs of this job on a node: Ray's name, and the name under which it is kept."""
    job = ray.get_runtime_context().get_job_id()
    host = node["NodeManagerHostname"]
    for names in list_logs(node_id=node["NodeID"], timeout=ANSWER_S).values():
        for name in names:
            if f"-{job}-" in name and name.endswith((".out", ".err", ".log")):
                yield name, f"{host}/{name.removesuffix('.log')}.log"
