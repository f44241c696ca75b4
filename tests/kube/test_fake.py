"""The fake cluster against the real kubectl: what a test may rely on when something else talks to it."""

import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import yaml
from fake import FakeCluster

pytestmark = pytest.mark.kube

Kubectl = Callable[..., Any]
Object = dict[str, Any]


def rayjob(name: str = "digits", **spec: Any) -> Object:
    """A RayJob that the CRD accepts."""
    template = {"spec": {"containers": [{"name": "ray-head", "image": "ray:1"}]}}
    cluster = {"headGroupSpec": {"rayStartParams": {}, "template": template}}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name},
        "spec": {"entrypoint": "true", "rayClusterSpec": cluster, **spec},
    }


def config_map(**data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": data}


def pod(name: str = "worker", phase: str = "Running", **metadata: Any) -> Object:
    spec = {"containers": [{"name": "ray-worker", "image": "ray:1"}], "nodeName": "node-1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **metadata},
        "spec": spec,
        "status": {"phase": phase},
    }


def ask(
    cluster: FakeCluster,
    path: str,
    method: str = "GET",
    body: Object | None = None,
    form: str = "application/json",
) -> Object:
    """One request; the Status where it is refused."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(cluster.url + path, data, {"Content-Type": form}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: Object = json.load(answer)
    except urllib.error.HTTPError as refused:
        with closing(refused):
            found = json.load(refused)
    return found


@contextmanager
def watching(cluster: FakeCluster, path: str) -> Iterator[Iterator[Object]]:
    """The events of a watch."""
    with urllib.request.urlopen(f"{cluster.url}{path}&watch=true", timeout=10) as answer:
        yield (json.loads(line) for line in answer)


def test_an_applied_rayjob_is_shown_with_the_columns_and_the_defaults_of_its_crd(
    cluster: FakeCluster, kubectl: Kubectl
) -> None:
    assert (
        "rayjob.ray.io/digits serverside-applied"
        in kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(rayjob())).stdout
    )
    cluster.set_status(
        "RayJob",
        "digits",
        {"jobStatus": "RUNNING", "jobDeploymentStatus": "Running", "rayClusterName": "digits-abc"},
    )
    head, row = kubectl("get", "rayjobs", "-o", "wide").stdout.splitlines()
    assert head.split()[:5] == ["NAME", "JOB", "STATUS", "DEPLOYMENT", "STATUS"]
    assert row.split()[:4] == ["digits", "RUNNING", "Running", "digits-abc"]
    shown = yaml.safe_load(kubectl("get", "rayjob", "digits", "-o", "yaml").stdout)
    assert shown["spec"]["submissionMode"] == "K8sJobMode"
    assert shown["metadata"]["generation"] == 1
    assert shown["metadata"]["uid"]


def test_the_generation_counts_specs_and_the_version_counts_writes(
    cluster: FakeCluster, kubectl: Kubectl
) -> None:
    def apply(job: Object) -> tuple[int, str]:
        kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(job))
        metadata = (cluster.get("RayJob", "digits") or {})["metadata"]
        return metadata["generation"], metadata["resourceVersion"]

    first = apply(rayjob())
    assert apply(rayjob()) == first
    labelled = rayjob()
    labelled["metadata"]["labels"] = {"team": "vision"}
    generation, version = apply(labelled)
    assert (generation, int(version) > int(first[1])) == (1, True)
    labelled["spec"]["entrypoint"] = "false"
    assert apply(labelled)[0] == 2


def test_a_dry_run_says_what_would_be_and_changes_nothing(cluster: FakeCluster, kubectl: Kubectl) -> None:
    text = json.dumps(rayjob())
    assert (
        "(server dry run)"
        in kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=text).stdout
    )
    assert (
        "(dry run)"
        in kubectl("create", "--dry-run=client", "--validate=strict", "-f", "-", stdin=text).stdout
    )
    assert cluster.get("RayJob", "digits") is None
    wrong = json.dumps(rayjob(backoffLimit="three"))
    refused = kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=wrong, fails=True)
    assert "spec.backoffLimit in body must be of type integer" in refused.stderr


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"bakoffLimit": 3}, 'unknown field "spec.bakoffLimit"'),
        ({"backoffLimit": "three"}, 'spec.backoffLimit: Invalid value: "string"'),
        ({"rayClusterSpec": {}}, "spec.rayClusterSpec.headGroupSpec: Required value"),
        ({"managedBy": "me"}, "the managedBy field value must be either"),
        (
            {
                "deletionStrategy": {
                    "deletionRules": [{"policy": "DeleteAll", "condition": {"jobStatus": "FAILED"}}]
                }
            },
            "Unsupported value",
        ),
        (
            {"deletionStrategy": {"deletionRules": [{"policy": "DeleteSelf", "condition": {}}]}},
            "requires either the JobStatus or",
        ),
        ({"deletionStrategy": {}}, "deletionStrategy"),
    ],
)
def test_what_the_crd_refuses_is_refused(
    cluster: FakeCluster, kubectl: Kubectl, spec: Object, said: str
) -> None:
    assert said in kubectl("create", "-f", "-", stdin=json.dumps(rayjob(**spec)), fails=True).stderr
    assert cluster.get("RayJob", "digits") is None


def test_an_unknown_field_is_dropped_with_a_warning_where_nobody_is_strict(
    cluster: FakeCluster, kubectl: Kubectl
) -> None:
    done = kubectl("create", "--validate=warn", "-f", "-", stdin=json.dumps(rayjob(bakoffLimit=3)))
    assert 'unknown field "spec.bakoffLimit"' in done.stderr
    assert "bakoffLimit" not in (cluster.get("RayJob", "digits") or {})["spec"]
    refused = kubectl(
        "apply", "--server-side", "-f", "-", stdin=json.dumps(rayjob("other", bakoffLimit=3)), fails=True
    )
    assert ".spec.bakoffLimit: field not declared in schema" in refused.stderr


def test_an_immutable_field_stays(cluster: FakeCluster, kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=json.dumps(rayjob(managedBy="ray.io/kuberay-operator")))
    words = ("patch", "rayjob", "digits", "--type=merge", "-p")
    change = json.dumps({"spec": {"managedBy": "kueue.x-k8s.io/multikueue"}})
    assert "the managedBy field is immutable" in kubectl(*words, change, fails=True).stderr
    kubectl(*words, json.dumps({"spec": {"suspend": True, "managedBy": "ray.io/kuberay-operator"}}))
    assert (cluster.get("RayJob", "digits") or {})["spec"]["suspend"] is True


def test_a_pod_is_held_against_kubernetes_own_schema(kubectl: Kubectl) -> None:
    nameless = pod()
    del nameless["spec"]["containers"][0]["name"]
    assert (
        "spec.containers[0].name: Required value"
        in kubectl("create", "-f", "-", stdin=json.dumps(nameless), fails=True).stderr
    )


def test_diff_shows_the_change_and_ends_with_1(cluster: FakeCluster, kubectl: Kubectl) -> None:
    text = json.dumps(rayjob())
    kubectl("apply", "--server-side", "-f", "-", stdin=text)
    assert kubectl("diff", "--server-side", "-f", "-", stdin=text).stdout == ""
    done = kubectl(
        "diff", "--server-side", "-f", "-", stdin=json.dumps(rayjob(entrypoint="false")), fails=True
    )
    assert done.returncode == 1
    assert '+  entrypoint: "false"' in done.stdout
    assert (cluster.get("RayJob", "digits") or {})["spec"]["entrypoint"] == "true"


def test_two_managers_conflict_over_what_one_changes_of_the_other(
    cluster: FakeCluster, kubectl: Kubectl
) -> None:
    def apply(manager: str, *words: str, fails: bool = False, **data: str) -> str:
        command = ("apply", "--server-side", f"--field-manager={manager}", "-f", "-", *words)
        return str(kubectl(*command, stdin=json.dumps(config_map(**data)), fails=fails).stderr)

    apply("first", a="1", b="1")
    apply("second", b="1", c="1")
    assert 'Apply failed with 1 conflict: conflict with "first": .data.a' in apply(
        "second", a="2", fails=True
    )
    several = apply("third", a="2", b="2", fails=True)
    assert (
        'Apply failed with 3 conflicts: conflicts with "first":\n- .data.a\n- .data.b\nconflicts with'
        ' "second":\n- .data.b' in several
    )
    apply("third", "--force-conflicts", a="2")
    apply("first", b="1")
    assert (cluster.get("ConfigMap", "settings") or {})["data"] == {"a": "2", "b": "1", "c": "1"}


def test_leaving_a_field_out_removes_it_where_nobody_else_owns_it(
    cluster: FakeCluster, kubectl: Kubectl
) -> None:
    def apply(manager: str, **data: str) -> Object:
        words = ("apply", "--server-side", f"--field-manager={manager}", "-f", "-")
        kubectl(*words, stdin=json.dumps(config_map(**data)))
        found: Object = (cluster.get("ConfigMap", "settings") or {}).get("data", {})
        return found

    apply("first", alone="1", shared="1")
    apply("second", shared="1")
    assert apply("first", kept="1") == {"shared": "1", "kept": "1"}
    assert apply("second") == {"kept": "1"}


def test_a_list_with_keys_merges_and_an_update_takes_over_what_it_changes(
    cluster: FakeCluster, kubectl: Kubectl
) -> None:
    job = rayjob()
    kubectl("apply", "--server-side", "--field-manager=raystack", "-f", "-", stdin=json.dumps(job))
    injected = cluster.get("RayJob", "digits") or {}
    containers = injected["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    containers.append({"name": "sidecar", "image": "s:1"})
    containers[0]["image"] = "ray:2"
    cluster.put(injected, manager="injector")
    refused = kubectl(
        "apply", "--server-side", "--field-manager=raystack", "-f", "-", stdin=json.dumps(job), fails=True
    )
    assert 'conflict with "injector" using ray.io/v1 at ' in refused.stderr
    assert 'containers[name="ray-head"].image' in refused.stderr
    containers = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    containers[0]["image"] = "ray:2"
    kubectl("apply", "--server-side", "--field-manager=raystack", "-f", "-", stdin=json.dumps(job))
    merged = (cluster.get("RayJob", "digits") or {})["spec"]["rayClusterSpec"]["headGroupSpec"]["template"][
        "spec"
    ]["containers"]
    assert [(container["name"], container["image"]) for container in merged] == [
        ("ray-head", "ray:2"),
        ("sidecar", "s:1"),
    ]


def test_a_stale_update_is_refused(cluster: FakeCluster) -> None:
    cluster.put(config_map(a="1"))
    path = "/api/v1/namespaces/default/configmaps/settings"
    stale = cluster.get("ConfigMap", "settings") or {}
    assert ask(cluster, path, "PUT", {**stale, "data": {"a": "2"}})["data"] == {"a": "2"}
    refused = ask(cluster, path, "PUT", {**stale, "data": {"a": "3"}})
    assert (refused["code"], refused["reason"]) == (409, "Conflict")
    patch = [
        {"op": "replace", "path": "/data/a", "value": "4"},
        {"op": "test", "path": "/data/a", "value": "4"},
    ]
    patched = ask(cluster, path, "PATCH", patch, "application/json-patch+json")  # type: ignore[arg-type]
    assert patched["data"] == {"a": "4"}


def test_delete_takes_what_is_owned_along_and_waits_for_finalizers(
    cluster: FakeCluster, kubectl: Kubectl
) -> None:
    job = cluster.put(rayjob())
    owner = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "name": "digits",
        "uid": job["metadata"]["uid"],
        "blockOwnerDeletion": True,
    }
    cluster.put(pod(ownerReferences=[owner], finalizers=["test/held"]))
    kubectl("delete", "rayjob", "digits", "--cascade=foreground", "--wait=false")
    waiting = (cluster.get("RayJob", "digits") or {})["metadata"]
    assert (waiting["finalizers"], "deletionTimestamp" in waiting) == (["foregroundDeletion"], True)
    kubectl("patch", "pod", "worker", "--type=merge", "-p", json.dumps({"metadata": {"finalizers": None}}))
    assert cluster.get("Pod", "worker") is None
    assert cluster.get("RayJob", "digits") is None
    assert 'rayjobs.ray.io "digits" not found' in kubectl("delete", "rayjob", "digits", fails=True).stderr


def test_selectors_choose(cluster: FakeCluster, kubectl: Kubectl) -> None:
    cluster.put(pod("a", labels={"ray.io/node-type": "head"}))
    cluster.put(pod("b", "Pending", labels={"ray.io/node-type": "worker"}))
    cluster.put(pod("c", namespace="other"))

    def names(*words: str) -> list[str]:
        return [
            line.removeprefix("pod/") for line in kubectl("get", "pods", "-o", "name", *words).stdout.split()
        ]

    assert names() == ["a", "b"]
    assert names("-A") == ["a", "b", "c"]
    assert names("-l", "ray.io/node-type in (head, none)") == ["a"]
    assert names("-l", "ray.io/node-type!=head") == ["b"]
    assert names("--field-selector", "status.phase=Pending") == ["b"]
    assert (
        "field label not supported: spec.hostname"
        in kubectl("get", "pods", "--field-selector", "spec.hostname=a", fails=True).stderr
    )


def test_a_long_list_comes_in_pages_unless_its_history_is_gone(cluster: FakeCluster) -> None:
    for name in "abc":
        cluster.put(pod(name))
    first = ask(cluster, "/api/v1/pods?limit=2")
    assert [obj["metadata"]["name"] for obj in first["items"]] == ["a", "b"]
    second = ask(cluster, f"/api/v1/pods?limit=2&continue={first['metadata']['continue']}")
    assert [obj["metadata"]["name"] for obj in second["items"]] == ["c"]
    assert "continue" not in second["metadata"]
    cluster.expire()
    assert ask(cluster, f"/api/v1/pods?limit=2&continue={first['metadata']['continue']}")["code"] == 410


def test_a_watch_tells_of_every_change_and_ends_with_410_when_its_history_is_gone(
    cluster: FakeCluster,
) -> None:
    path = "/apis/ray.io/v1/namespaces/default/rayjobs"
    version = ask(cluster, path)["metadata"]["resourceVersion"]
    with watching(
        cluster, f"{path}?fieldSelector=metadata.name%3Ddigits&resourceVersion={version}"
    ) as events:
        cluster.put(rayjob("another"))
        cluster.put(rayjob())
        cluster.set_status("RayJob", "digits", {"jobDeploymentStatus": "Running"})
        cluster.delete("RayJob", "digits")
        seen = [next(events) for _ in range(3)]
        assert [event["type"] for event in seen] == ["ADDED", "MODIFIED", "DELETED"]
        assert seen[1]["object"]["status"]["jobDeploymentStatus"] == "Running"
        cluster.expire()
        gone = next(events)
        assert (gone["type"], gone["object"]["code"]) == ("ERROR", 410)
        assert next(events, None) is None
    with watching(cluster, f"{path}?resourceVersion={version}") as events:
        assert next(events)["object"]["reason"] == "Expired"
    version = ask(cluster, path)["metadata"]["resourceVersion"]
    with watching(cluster, f"{path}?resourceVersion={version}") as events:
        cluster.put(rayjob())
        assert next(events)["type"] == "ADDED"


def test_kubectl_waits_for_a_status_that_a_test_sets(cluster: FakeCluster, kubectl: Kubectl) -> None:
    cluster.put(rayjob())
    timer = threading.Timer(0.3, cluster.set_status, ("RayJob", "digits", {"jobStatus": "SUCCEEDED"}))
    timer.start()
    assert (
        "condition met"
        in kubectl(
            "wait", "rayjob/digits", "--for=jsonpath={.status.jobStatus}=SUCCEEDED", "--timeout=20s"
        ).stdout
    )
    timer.join()


def test_a_status_that_the_crd_does_not_know_is_a_mistake_of_the_test(cluster: FakeCluster) -> None:
    cluster.put(rayjob())
    with pytest.raises(ValueError, match="jobDeploymentstatus"):
        cluster.set_status("RayJob", "digits", {"jobDeploymentstatus": "Running"})
    cluster.put({"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": "c"}, "spec": {}})
    with pytest.raises(ValueError, match="Unsupported value"):
        cluster.set_status("RayCluster", "c", {"conditions": [{"type": "HeadPodReady", "status": "Maybe"}]})


def test_logs_follow_until_the_pod_ends(cluster: FakeCluster, kubectl: Kubectl) -> None:
    cluster.put(pod(phase="Pending"))
    assert "is waiting to start: ContainerCreating" in kubectl("logs", "worker", fails=True).stderr
    cluster.set_status("Pod", "worker", {"phase": "Running"})
    cluster.log("worker", "ray-worker", "step 1")

    def go_on() -> None:
        time.sleep(0.3)
        cluster.log("worker", "ray-worker", "step 2\nstep 3")
        cluster.set_status("Pod", "worker", {"phase": "Succeeded"})

    thread = threading.Thread(target=go_on)
    thread.start()
    assert kubectl("logs", "-f", "worker").stdout == "step 1\nstep 2\nstep 3\n"
    thread.join()
    assert kubectl("logs", "worker", "--tail=1").stdout == "step 3\n"
    assert "previous terminated container" in kubectl("logs", "worker", "--previous", fails=True).stderr
    assert "container other is not valid" in kubectl("logs", "worker", "-c", "other", fails=True).stderr


def test_events_are_told_of_their_object_and_count(cluster: FakeCluster, kubectl: Kubectl) -> None:
    cluster.put(pod())
    for _ in range(2):
        cluster.event("Pod", "worker", "FailedScheduling", "0/3 nodes are available")
    described = kubectl("describe", "pod", "worker").stdout
    assert "FailedScheduling" in described
    assert "(x2 over" in described
    assert (
        "0/3 nodes are available"
        in kubectl("get", "events", "--field-selector", "involvedObject.name=worker").stdout
    )
    assert (
        "0/3 nodes are available"
        in kubectl("get", "events.events.k8s.io", "-o", "jsonpath={.items[*].note}").stdout
    )
    assert (
        "No resources found"
        in kubectl("get", "events", "--field-selector", "involvedObject.name=head").stderr
    )


def test_a_crd_can_be_read_and_taken_away(cluster: FakeCluster, kubectl: Kubectl) -> None:
    crd = json.loads(kubectl("get", "crd", "raycronjobs.ray.io", "-o", "json").stdout)
    assert (
        "schedule"
        in crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    )
    cluster.delete("CustomResourceDefinition", "raycronjobs.ray.io")
    assert "could not find the requested resource" in kubectl("get", "raycronjobs", fails=True).stderr


def test_who_may_not_is_told_so(cluster: FakeCluster, kubectl: Kubectl) -> None:
    cluster.forbid("create", "rayjobs")
    refused = kubectl("create", "-f", "-", stdin=json.dumps(rayjob()), fails=True).stderr
    assert 'cannot create resource "rayjobs" in API group "ray.io" in the namespace "default"' in refused
    applied = kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(rayjob()), fails=True).stderr
    assert 'cannot create resource "rayjobs"' in applied, "what is not there is created by an apply, too"
    cluster.put(pod())
    cluster.forbid("get", "pods/log")
    assert kubectl("get", "pod", "worker", "-o", "name").stdout == "pod/worker\n"
    assert 'cannot get resource "pods/log" in API group ""' in kubectl("logs", "worker", fails=True).stderr
    with FakeCluster(token="letmein") as guarded:
        assert ask(guarded, "/version")["code"] == 401


def test_a_port_of_a_pod_leads_to_one_of_this_machine(cluster: FakeCluster) -> None:
    websocket = pytest.importorskip("websocket", reason="comes with the package kubernetes")
    cluster.put(pod())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        cluster.serve("worker", 8265, listening.getsockname()[1])
        pod_url = f"{cluster.url.replace('http', 'ws')}/api/v1/namespaces/default/pods/worker"
        address = f"{pod_url}/portforward?ports=8265,8000"
        with closing(
            websocket.create_connection(address, subprotocols=["v4.channel.k8s.io"], timeout=10)
        ) as client:
            openings = [client.recv() for _ in range(4)]
            assert sorted(openings) == [
                bytes([channel]) + port.to_bytes(2, "little")
                for channel, port in enumerate((8265, 8265, 8000, 8000))
            ]
            assert client.recv() == b"\x03error forwarding port 8000: connection refused"
            with closing(listening.accept()[0]) as served:
                client.send_binary(b"\x00ping")
                assert served.recv(4) == b"ping"
                served.sendall(b"pong")
                assert client.recv() == b"\x00pong"


def test_an_abrupt_end_of_a_watch_looks_like_one(cluster: FakeCluster) -> None:
    with urllib.request.urlopen(
        f"{cluster.url}/api/v1/pods?watch=true&timeoutSeconds=30", timeout=10
    ) as answer:
        cluster.put(pod())
        assert json.loads(answer.readline())["type"] == "ADDED"
        cluster.drop()
        with pytest.raises(http.client.IncompleteRead):
            answer.read()


def test_the_namespace_has_to_be_there(kubectl: Kubectl) -> None:
    refused = kubectl("create", "-n", "nowhere", "-f", "-", stdin=json.dumps(config_map(a="1")), fails=True)
    assert 'namespaces "nowhere" not found' in refused.stderr
