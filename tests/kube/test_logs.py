"""Where logs come from: a submitter's pod, and Ray's dashboard where no pod has them; what is kept before a
pod is deleted.
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fake import FakeCluster

from raystack.errors import LaunchError
from raystack.kuberay.api.client import Client
from raystack.kuberay.observe import logs
from raystack.kuberay.observe.archive import keep_cluster
from raystack.kuberay.observe.submitter import of_driver
from raystack.launch.kuberay import KubeRemote

pytestmark = pytest.mark.slow
Object = dict[str, Any]
Answers = dict[str, Any]
FILE = "serve/replica_digits_model_x7k2p.log"
READ = "node_id=n1&filename=serve%2Freplica_digits_model_{}.log&lines=-1"
NODES = {
    "data": {"result": {"result": [{"node_id": "n1", "state": "ALIVE"}, {"node_id": "n0", "state": "DEAD"}]}}
}


def serves(*replicas: Object) -> Object:
    """What Serve says of its one application."""
    return {"applications": {"digits": {"deployments": {"model": {"replicas": replicas}}}}}


@pytest.fixture
def dashboard(cluster: FakeCluster) -> Iterator[Answers]:
    """Ray's dashboard on the head of `digits-x`: what it answers, by path, as JSON or as text."""
    answers: Answers = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path)
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write(found.encode() if isinstance(found, str) else json.dumps(found).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        labels = {
            "ray.io/cluster": "digits-x",
            "ray.io/node-type": "head",
            "ray.io/originated-from-cr-name": "digits",
        }
        pod(cluster, "digits-head", "ray-head", labels)
        cluster.serve("digits-head", 8265, server.server_port)
        cluster.log("digits-head", "ray-head", "Ray runtime started.")
        cluster.put({"kind": "RayCluster", "metadata": {"name": "digits-x"}, "spec": {}})
        yield answers
        server.shutdown()
        thread.join(10)


def pod(cluster: FakeCluster, name: str, container: str, labels: Object) -> None:
    """One that runs and is ready."""
    status = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": container, "state": {"running": {}}}],
    }
    spec = {"containers": [{"name": container, "image": "registry/raystack:1"}]}
    cluster.put({"kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec, "status": status})


@pytest.fixture
def service(cluster: FakeCluster, dashboard: Answers, monkeypatch: pytest.MonkeyPatch) -> KubeRemote:
    """The RayService `digits`, which answers on that cluster."""
    monkeypatch.setattr(logs, "LOOK_S", 0.2)
    ready = {"type": "Ready", "status": "True", "reason": "NonZeroServeEndpoints"}
    status = {"activeServiceStatus": {"rayClusterName": "digits-x"}, "conditions": [ready]}
    cluster.put({"kind": "RayService", "metadata": {"name": "digits"}, "spec": {}, "status": status})
    return KubeRemote(Client(kubeconfig=str(cluster.kubeconfig)), "rayservice", "digits")


def test_the_log_of_a_service_is_that_of_its_replicas(dashboard: Answers, service: KubeRemote) -> None:
    dashboard["/api/serve/applications/"] = serves({"node_id": "n1", "log_file_path": f"/{FILE}"})
    dashboard[f"/api/v0/logs/file?{READ.format('x7k2p')}"] = (
        "Started initializing replica.\nFinished initializing replica.\n"
    )
    seen = [(line.source, line.text) for line in service.logs(follow=False, everything=False)]
    assert seen == [
        ("digits_model_x7k2p", "Started initializing replica."),
        ("digits_model_x7k2p", "Finished initializing replica."),
    ]


def test_replicas_that_failed_to_start_have_logs_too(dashboard: Answers, service: KubeRemote) -> None:
    dashboard["/api/serve/applications/"] = serves()
    dashboard["/api/v0/nodes?limit=1000"] = NODES
    files = {"result": {"internal": [FILE, FILE.replace("x7k2p", "b3")]}}
    dashboard["/api/v0/logs?node_id=n1&glob=serve%2Freplica_digits_model_%2A"] = {"data": files}
    for name in ("b3", "x7k2p"):
        dashboard[f"/api/v0/logs/file?{READ.format(name)}"] = f"I am {name}"
    seen = [(line.source, line.text) for line in service.logs(follow=False, everything=False)]
    assert seen == [("digits_model_b3", "I am b3"), ("digits_model_x7k2p", "I am x7k2p")]


def test_replicas_are_followed_and_a_dashboard_that_is_away_is_asked_again(
    cluster: FakeCluster, dashboard: Answers, service: KubeRemote
) -> None:
    dashboard[f"/api/v0/logs/stream?{READ.format('x7k2p')}"] = "loading\nloaded\n"
    seen = []
    for line in service.logs(follow=True, everything=False):
        seen.append((line.source, line.text))
        if line.source == "dashboard":
            dashboard["/api/serve/applications/"] = serves({"node_id": "n1", "log_file_path": f"/{FILE}"})
        elif line.text == "loaded":
            cluster.delete("RayService", "digits")
    assert "does not tell the log" in seen[0][1]
    assert seen[1:] == [("digits_model_x7k2p", "loading"), ("digits_model_x7k2p", "loaded")]


def test_a_service_without_replicas_has_no_log_and_all_pods_have_theirs(
    dashboard: Answers, service: KubeRemote
) -> None:
    dashboard["/api/serve/applications/"] = {}
    with pytest.raises(LaunchError, match="it has no log"):
        list(service.logs(follow=False, everything=False))
    seen = [(line.source, line.text) for line in service.logs(follow=False, everything=True)]
    assert seen == [("digits-head/ray-head", "Ray runtime started.")]


def test_a_driver_whose_submitter_is_gone_is_kept_and_so_are_replicas(
    cluster: FakeCluster, dashboard: Answers, tmp_path: Path
) -> None:
    dashboard["/api/jobs/"] = [{"submission_id": "digits-7f3a"}, {"submission_id": None}]
    dashboard["/api/jobs/digits-7f3a/logs"] = {"logs": "step 1\nstep 2\n"}
    dashboard["/api/serve/applications/"] = serves({"node_id": "n1", "log_file_path": f"/{FILE}"})
    dashboard[f"/api/v0/logs/file?{READ.format('x7k2p')}"] = "I am x7k2p\n"
    client = Client(kubeconfig=str(cluster.kubeconfig))
    folder = keep_cluster(client, "digits-x", tmp_path / "first")
    assert (folder / "driver" / "digits-7f3a.log").read_text() == "step 1\nstep 2\n"
    assert (folder / "replicas" / "digits_model_x7k2p.log").read_text() == "I am x7k2p\n"
    pod(cluster, "digits-submitter", "ray-job-submitter", {"job-name": "digits"})
    cluster.log("digits-submitter", "ray-job-submitter", "step 1")
    folder = keep_cluster(client, "digits-x", tmp_path / "second")
    assert (folder / "digits-submitter" / "ray-job-submitter.log").read_text() == "step 1\n"
    assert not (folder / "driver").exists()
    cluster.forbid("get", "pods/log")  # as of a pod whose node is gone
    folder = keep_cluster(client, "digits-x", tmp_path / "third")
    assert (folder / "driver" / "digits-7f3a.log").read_text() == "step 1\nstep 2\n"


def test_a_dashboard_that_is_away_does_not_stand_in_the_way(
    cluster: FakeCluster, dashboard: Answers, tmp_path: Path
) -> None:
    folder = keep_cluster(Client(kubeconfig=str(cluster.kubeconfig)), "digits-x", tmp_path)
    assert (folder / "digits-head" / "ray-head.log").read_text() == "Ray runtime started.\n"
    assert "dashboard" in (folder / "missing.txt").read_text()


# What a submitter says of itself

COMMAND = [
    "Traceback (most recent call last):",
    '  File "/usr/local/bin/ray", line 8, in <module>',
    "    sys.exit(main())",
    (
        '  File "/usr/local/lib/python3.11/site-packages/ray/dashboard/modules/job/sdk.py", line 525, in'
        " tail_job_logs"
    ),
    "    raise RuntimeError(",
    "RuntimeError: WebSocket connection closed unexpectedly with close code 1006",
]
REFUSED = [
    "Traceback (most recent call last):",
    '  File "/usr/local/lib/python3.11/site-packages/urllib3/connection.py", line 239, in _new_conn',
    "    sock.connect(sa)",
    "ConnectionRefusedError: [Errno 111] Connection refused",
    "",
    "During handling of the above exception, another exception occurred:",
    "",
]
OWN = [
    "Traceback (most recent call last):",
    '  File "/code/task.py", line 3, in loss',
    "    raise KeyError('x')",
    "KeyError: 'x'",
    "",
    "During handling of the above exception, another exception occurred:",
    "",
    "Traceback (most recent call last):",
    '  File "/code/task.py", line 5, in loss',
    "ValueError: no loss",
]
UNAUTHORIZED = [*COMMAND[:-1], "RuntimeError: Request failed with status code 401: Unauthorized"]
LOST = (
    "(the submitter has lost the cluster: RuntimeError: WebSocket connection closed unexpectedly with close"
    " code 1006)"
)
LINES: dict[str, tuple[list[str], list[str]]] = {
    "a cluster that went away": (["step 1", *COMMAND], ["step 1", LOST]),
    "a cluster that was away": ([*REFUSED, *COMMAND, "step 1"], [LOST, "step 1"]),
    "a token that is refused": (UNAUTHORIZED, UNAUTHORIZED[-1:]),
    "an error of the task": (OWN, OWN),
    "a service that the task did not reach": ([*REFUSED, *OWN, "step 1"], [*REFUSED, *OWN, "step 1"]),
    "one error of a connection": ([*REFUSED[:4], "step 1"], [*REFUSED[:4], "step 1"]),
    "a log that ends in the middle": (COMMAND[:3], COMMAND[:3]),
}


@pytest.mark.parametrize("name", LINES)
def test_a_traceback_of_the_submitter_is_one_line(name: str) -> None:
    lines, told = LINES[name]
    assert list(of_driver(iter(lines))) == told


def test_an_error_of_the_task_is_not_held_back() -> None:
    """Who follows a log sees the error although no line comes after it."""
    came: list[str] = []

    def lines() -> Iterator[str]:
        yield from OWN[:4]
        came.append("asked for more")
        yield "never"

    following = of_driver(lines())
    assert [next(following) for _ in range(4)] == OWN[:4]
    assert came == []
    assert next(following) == "never"
