"""Each verb with the roles that are shipped for it, and a server that refuses all that they do not allow."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import manifests
import pytest
import yaml
from fake import FakeCluster
from fake.operator import take_up

from raystack.cli.main import main
from raystack.kuberay.api.client import Client
from raystack.kuberay.observe.connect import connect

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "tests" / "tiny" / "config.yaml")
ROLES = {
    role["metadata"]["name"].removeprefix("raystack-"): role
    for role in yaml.safe_load_all((ROOT / "kuberay" / "role.yaml").read_text(encoding="utf-8"))
}
NOW = "2026-01-01T00:00:00Z"
REFUSED = r"cannot \w+ resource"
Object = dict[str, Any]

ON = [
    TINY,
    "target=kuberay",
    "target.image=example.com/raystack:2.60.0",
    "resources.workers=1",
    "tracking.kind=off",
    "experiment.storage=/data",
    "target.storage.volumes=[{kind: pvc, name: data, mount: /data}]",
    "target.secrets={HF: hf/token}",
]
SERVE = ["serving.model=/data/model", "serving.name=tiny"]
JOB, HELD, CLUSTER = "rayjob/digits", "rayjob/held", "raycluster/digits-x"
RUN, CHANGE = ("look", "run"), ("look", "change")
VERBS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "status of all": (["status"], ("look",)),
    "status": (["status", JOB], ("look",)),
    "status of what a queue holds": (["status", HELD], ("look",)),
    "status until it changes": (["status", "--watch", "--timeout", "0.2", JOB], ("look",)),
    "diagnose": (["diagnose", JOB], ("look",)),
    "logs": (["logs", JOB], ("look",)),
    "logs of all": (["logs", "--all", JOB], ("look",)),
    "train": (["train", *ON], RUN),
    "train in a queue": (["train", *ON, "target.queue={scheduler: kueue, name: team}"], RUN),
    "train elastically": (
        [
            "train",
            *ON,
            "resources.workers=[1, 2]",
        ],
        RUN,
    ),
    "train each night": (["train", *ON, "target.cron.schedule=@daily"], RUN),
    "serve": (["serve", *ON, *SERVE], RUN),
    "render --diff": (["render", *ON, *SERVE, "--as", "service", "--diff"], RUN),
    "suspend": (["suspend", JOB], CHANGE),
    "suspend in a queue": (["suspend", HELD], CHANGE),
    "resume": (["resume", "rayjob/rests"], CHANGE),
    "scale": (["scale", CLUSTER, "3"], CHANGE),
    "cancel": (["cancel", JOB], CHANGE),
    "gc": (["gc", "--foreign", "--older", "0", "--yes"], ("look", "connect", "change")),
    "doctor": (["doctor", *ON], ("look", "connect", "run", "change", "doctor")),
}
"""The words of a verb, and the roles that its user is bound to."""


@pytest.fixture
def world(in_process: FakeCluster) -> FakeCluster:
    """A job that runs in a gang of Volcano, one that Kueue holds, one that is suspended, one that has ended,
    and what a config needs.
    """
    cluster = in_process
    for kind, name in (("PersistentVolumeClaim", "data"), ("Secret", "hf"), ("LocalQueue", "team")):
        cluster.put({"kind": kind, "metadata": {"name": name}, "spec": {}, "data": {"token": "eA=="}})
    runs = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "rayClusterName": "digits-x"}
    rests, ended = {"jobDeploymentStatus": "Suspended"}, {"jobDeploymentStatus": "Complete", "endTime": NOW}
    for name, status in (("digits", runs), ("held", rests), ("rests", rests), ("over", ended)):
        made = manifests.rayjob(name, **({"suspend": True} if status is rests else {}))
        if name == "held":
            made["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "team"}
        cluster.put(made)
        cluster.set_status(
            "RayJob", name, {"jobStatus": "SUCCEEDED", **status} if status is ended else status
        )
    held = cluster.get("RayJob", "held") or {}
    owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": "held", "uid": held["metadata"]["uid"]}
    workload = {"kind": "Workload", "metadata": {"name": "w", "ownerReferences": [owner]}}
    cluster.put({**workload, "spec": {"active": True}, "status": {"conditions": []}})
    gang = {"annotations": {"scheduling.k8s.io/group-name": "gang"}}
    up = manifests.raycluster("digits-x")
    up["metadata"].update(gang)
    cluster.put(up)
    counts = {"readyWorkerReplicas": 0, "desiredWorkerReplicas": 1, "observedGeneration": 1}
    cluster.set_status("RayCluster", "digits-x", counts)
    cluster.event(
        "RayCluster", "digits-x", "FailedToCreateWorkerPod", "exceeded quota: team, requested: cpu=1"
    )
    cluster.put(
        {"kind": "PodGroup", "metadata": {"name": "gang"}, "spec": {}, "status": {"phase": "Running"}}
    )
    cluster.put({"kind": "Job", "metadata": {"name": "digits"}, "spec": {}, "status": {}})
    head = {"ray.io/cluster": "digits-x", "ray.io/node-type": "head"}
    for name, label, container in (
        ("digits-head", head, "ray-head"),
        ("digits-1", {"job-name": "digits"}, "ray-job-submitter"),
    ):
        pod = manifests.pod(name, labels=label)
        pod["spec"]["containers"][0]["name"] = pod["status"]["containerStatuses"][0]["name"] = container
        cluster.put(pod)
        cluster.log(name, container, "step 1\n")
    return cluster


@contextmanager
def operated(cluster: FakeCluster) -> Iterator[None]:
    """KubeRay's operator, which takes up what is new."""
    over = threading.Event()

    def operate() -> None:
        while not over.wait(0.05):
            for kind in ("RayJob", "RayService", "RayCronJob"):
                for made in cluster.all(kind):
                    if not made.get("status"):
                        name = made["metadata"]["name"]
                        if kind != "RayCronJob":
                            take_up(cluster, kind, name)
                        cluster.set_status(kind, name, TAKEN[kind])

    thread = threading.Thread(target=operate)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


TAKEN: dict[str, Object] = {
    "RayJob": {"jobDeploymentStatus": "Initializing"},
    "RayService": {"observedGeneration": 1},
    "RayCronJob": {"lastScheduleTime": NOW},
}


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_works_with_its_roles_and_nothing_else(
    name: str, world: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    words, roles = VERBS[name]
    world.bind(*(ROLES[role] for role in roles))
    with operated(world):
        code = main(words)
    out, err = capsys.readouterr()
    assert code == (4 if "--watch" in words else 0), err
    for said in (REFUSED, "may not", "left out", "not read"):
        assert re.search(said, out + err) is None


@pytest.mark.parametrize("name", [name for name, (_, roles) in VERBS.items() if len(roles) == 2])
def test_what_looks_does_not_change(
    name: str, world: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    world.bind(ROLES["look"])
    assert main(VERBS[name][0]) == 4
    assert re.search(REFUSED, capsys.readouterr().err)


def test_a_port_is_forwarded_with_its_role(world: FakeCluster, caplog: pytest.LogCaptureFixture) -> None:
    """As for the logs of services and the last use of clusters, which gc asks for."""
    world.put(manifests.raycluster("model"))
    world.put(manifests.pod("head", labels={"ray.io/cluster": "model", "ray.io/node-type": "head"}))
    client = Client(kubeconfig=str(world.kubeconfig))
    with socket.create_server(("127.0.0.1", 0)) as dashboard:
        world.serve("head", 8265, dashboard.getsockname()[1])
        world.bind(ROLES["look"], ROLES["connect"])
        with connect(client, "raycluster", "model") as (port,):
            here = int(port.url.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", here), timeout=10) as sent:
                sent.sendall(b"ping")
                came, _ = dashboard.accept()
                with came:
                    assert came.recv(4) == b"ping"
        world.bind(ROLES["look"])
        with (
            connect(client, "raycluster", "model") as (port,),
            socket.create_connection(("127.0.0.1", int(port.url.rpartition(":")[2])), timeout=10) as sent,
        ):
            assert sent.recv(1) == b"", "it is hung up"
    assert re.search(REFUSED, caplog.text)
    assert "{" not in caplog.text, "what the server says is not shown as it came"
