"""The door to Kubernetes: what it reads, watches, applies and refuses, and how it lives through an API that
goes away.
"""

import http.server
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import manifests
import pytest
from fake import FakeCluster

from raystack.errors import LaunchError
from raystack.kuberay.api.client import Client
from raystack.kuberay.observe.reader import observe

pytestmark = pytest.mark.kube


@pytest.fixture
def client(cluster: FakeCluster) -> Client:
    return Client(kubeconfig=str(cluster.kubeconfig))


def test_reads_objects_and_tells_nothing_from_unknown(cluster: FakeCluster, client: Client) -> None:
    cluster.put(manifests.pod("head", labels={"ray.io/node-type": "head"}))
    cluster.put(manifests.pod("worker", labels={"ray.io/node-type": "worker"}))
    assert [pod["metadata"]["name"] for pod in client.list("Pod", labels={"ray.io/node-type": "head"})] == [
        "head"
    ]
    assert client.list("Pod")[0]["kind"] == "Pod", "items of a list say what they are"
    assert client.get("Pod", "other") is None
    with pytest.raises(LaunchError, match="did you mean RayJob"):
        client.get("RayJobs", "digits")
    with pytest.raises(LaunchError, match="does not know that kind"):
        client.list("LimitRange")
    assert set(client.crds()) == {"RayCluster", "RayJob", "RayService", "RayCronJob"}


def test_applies_strictly(cluster: FakeCluster, client: Client) -> None:
    made = client.apply(manifests.rayjob())
    assert cluster.get("RayJob", "digits") is not None
    assert [each["manager"] for each in made["metadata"]["managedFields"]] == ["raystack"]
    with pytest.raises(
        LaunchError, match=r"^rayjob/digits spec.entrypiont: the cluster does not know this field"
    ):
        client.apply(manifests.rayjob(entrypiont="x"), dry_run=True)
    with pytest.raises(LaunchError) as raised:
        client.apply(manifests.rayjob(backoffLimit="x", ttlSecondsAfterFinished="y"), dry_run=True)
    assert len(raised.value.problems) == 2


def test_dry_run_writes_nothing(cluster: FakeCluster, client: Client) -> None:
    tried = client.apply(manifests.rayjob(), dry_run=True)
    assert tried["metadata"]["name"] == "digits"
    assert cluster.get("RayJob", "digits") is None


def test_a_field_of_somebody_else_is_taken_only_by_force(cluster: FakeCluster, client: Client) -> None:
    client.apply(manifests.rayjob(backoffLimit=1))
    client.patch("RayJob", "digits", {"spec": {"backoffLimit": 3}}, manager="somebody")
    with pytest.raises(LaunchError, match=r"backoffLimit is set by somebody"):
        client.apply(manifests.rayjob(backoffLimit=2))
    assert client.apply(manifests.rayjob(backoffLimit=2), force=True)["spec"]["backoffLimit"] == 2


def test_delete_of_what_is_gone_is_no_error(cluster: FakeCluster, client: Client) -> None:
    client.apply(manifests.rayjob())
    client.delete("RayJob", "digits")
    client.delete("RayJob", "digits")
    assert cluster.get("RayJob", "digits") is None


def test_watch_lives_through_a_cut_and_a_forgotten_version(cluster: FakeCluster, client: Client) -> None:
    client.apply(manifests.rayjob())

    def drive() -> None:
        for step in ("Initializing", "Running", "Complete"):
            cluster.set_status("RayJob", "digits", {"jobDeploymentStatus": step})
            time.sleep(0.4)
            if step == "Initializing":
                cluster.drop()
            else:
                cluster.expire()
        cluster.delete("RayJob", "digits")

    thread = threading.Thread(target=drive)
    seen: list[str | None] = []
    for current in client.watch("RayJob", "digits", timeout_s=20):
        if not seen:
            thread.start()
        seen.append(None if current is None else current.get("status", {}).get("jobDeploymentStatus", ""))
        if current is None:
            break
    thread.join()
    assert [seen[0], seen[-1]] == ["", None]
    assert "Complete" in seen


def test_watch_ends_with_its_time(client: Client) -> None:
    began = time.monotonic()
    assert list(client.watch("RayJob", "digits", timeout_s=0.5)) == [None]
    assert time.monotonic() - began < 3


def test_events_come_oldest_first(cluster: FakeCluster, client: Client) -> None:
    client.apply(manifests.rayjob())
    cluster.event("RayJob", "digits", "CreatedRayCluster", "first")
    time.sleep(1.1)  # events are timed in seconds
    cluster.event("RayJob", "digits", "InvalidRayJobSpec", "second")
    assert [event["message"] for event in client.events("RayJob", "digits")] == ["first", "second"]


def test_follows_a_log_until_the_pod_has_ended(cluster: FakeCluster, client: Client) -> None:
    cluster.put(manifests.pod("head"))
    cluster.log("head", "ray", "one\ntwo")
    assert list(client.logs("head", "ray")) == ["one", "two"]
    lines = client.logs("head", "ray", follow=True)
    assert [next(lines), next(lines)] == ["one", "two"]
    cluster.log("head", "ray", "three")
    assert next(lines) == "three"
    cluster.put(manifests.pod("head", phase="Succeeded"))
    assert list(lines) == []


@pytest.fixture
def greeter() -> Iterator[int]:
    """Port of a server on this machine that answers every request with `hello`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_forwarded_port_leads_to_the_pod_that_is_there_now(
    cluster: FakeCluster, client: Client, greeter: int
) -> None:
    for name in ("head-1", "head-2"):
        cluster.put(manifests.pod(name))
        cluster.serve(name, 8265, greeter)
    heads = iter(["head-1", "head-2"])
    with client.forward(lambda: next(heads), 8265) as port:
        for _ in range(2):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                assert answer.read() == b"hello"
    assert next(heads, None) is None


def test_an_api_that_never_answered_is_told_at_once(tmp_path: Path, cluster: FakeCluster) -> None:
    config = tmp_path / "config"
    config.write_text(cluster.kubeconfig.read_text().replace(cluster.url, "http://127.0.0.1:9"))
    began = time.monotonic()
    with pytest.raises(LaunchError, match="does not answer"):
        Client(kubeconfig=str(config)).get("Pod", "head")
    assert time.monotonic() - began < 3


def test_says_what_is_wrong_with_a_kubeconfig(tmp_path: Path, cluster: FakeCluster) -> None:
    with pytest.raises(LaunchError, match="there is no kubeconfig"):
        Client(kubeconfig=str(tmp_path / "none"))
    with pytest.raises(LaunchError, match="nowhere"):
        Client(kubeconfig=str(cluster.kubeconfig), context="nowhere")


def test_a_refused_user_is_told_what_he_may_not(cluster: FakeCluster, client: Client) -> None:
    cluster.forbid("list", "pods")
    with pytest.raises(LaunchError, match="pods"):
        client.list("Pod")
    with FakeCluster(token="right") as guarded:
        config = guarded.kubeconfig
        assert Client(kubeconfig=str(config)).list("Pod") == []
        config.write_text(config.read_text().replace("right", "wrong"))
        with pytest.raises(LaunchError, match="log in again") as raised:
            Client(kubeconfig=str(config)).list("Pod")
        assert "wrong" not in str(raised.value)


def test_what_may_be_read_and_not_watched_is_read_every_now_and_then(
    cluster: FakeCluster, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("raystack.kuberay.api.client.POLL_S", 0.05)
    cluster.forbid("watch", "rayjobs")
    client.apply(manifests.rayjob())
    states = client.watch("RayJob", "digits", timeout_s=20)
    assert "status" not in (next(states) or {})
    cluster.set_status("RayJob", "digits", {"jobDeploymentStatus": "Running"})
    assert (next(states) or {})["status"]["jobDeploymentStatus"] == "Running"
    cluster.delete("RayJob", "digits")
    assert next(states) is None
    list(client.watch("RayJob", "digits", timeout_s=0.1))
    (said,) = [record.getMessage() for record in caplog.records]
    assert 'cannot watch resource "rayjobs" in API group "ray.io"' in said


def test_an_event_that_is_told_again_is_as_new_as_its_last_time(cluster: FakeCluster, client: Client) -> None:
    """One of the newer API began first, and was seen an hour later: the newest, for whoever reads events."""
    job = cluster.put(manifests.rayjob())
    about = {"kind": "RayJob", "name": "digits", "uid": job["metadata"]["uid"]}
    whole: dict[str, Any] = {"kind": "Event", "apiVersion": "v1", "involvedObject": about, "type": "Warning"}
    again = {"count": 9, "lastObservedTime": "2026-03-01T13:00:00.000000Z"}
    began = {"eventTime": "2026-03-01T12:00:00.000000Z", "series": again}
    cluster.put({**whole, "metadata": {"name": "a"}, "reason": "Again", **began})
    cluster.put(
        {**whole, "metadata": {"name": "b"}, "reason": "Once", "lastTimestamp": "2026-03-01T12:30:00Z"}
    )
    told = [client.events("RayJob", "digits"), observe(client, "rayjob", "digits").events]
    assert [[event["reason"] for event in events] for events in told] == [["Once", "Again"]] * 2
