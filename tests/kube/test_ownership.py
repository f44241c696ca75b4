"""Who owns which field: the fake cluster against what a real one recorded, write by write."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import manifests
import pytest
from fake import FakeCluster, operator, ownership, verbs
from fake.kinds import Kind, Kinds
from fake.ownership import Manager

from raystack.errors import LaunchError
from raystack.kuberay.actions.submit import submit
from raystack.kuberay.api.client import Client

pytestmark = pytest.mark.kube

Object = dict[str, Any]

RECORDED = Path(__file__).parents[3] / "shared" / "kuberay" / "recorded"


def recorded(name: str, *kinds: str) -> list[Object]:
    """Every state of every object of these kinds, in the order in which it was seen."""
    text = (RECORDED / f"{name}.jsonl").read_text(encoding="utf-8")
    seen = (json.loads(line).get("object") for line in text.splitlines())
    return [each for each in seen if each is not None and each["kind"] in kinds]


def owned(obj: Object | None) -> dict[str, Object]:
    """Fields by their owner: manager, operation, subresource."""
    entries = (obj or {}).get("metadata", {}).get("managedFields", ())
    return {
        f"{each['manager']} {each['operation']} {each.get('subresource', '')}".strip(): each["fieldsV1"]
        for each in entries
    }


def only(obj: Object, fields: Object) -> Any:
    """The part of an object that these fields name: what was applied, as far as it is known."""
    if not fields or not isinstance(obj, dict):
        return obj
    part: Object = {}
    for element, below in fields.items():
        if element.startswith("f:") and element[2:] in obj:
            value, listed = obj[element[2:]], isinstance(obj[element[2:]], list) and below
            part[element[2:]] = (
                [only(each, _of_item(below, each)) for each in value] if listed else only(value, below)
            )
    return part


def _of_item(fields: Object, item: Object) -> Object:
    """The fields of the item of a list whose key is in `fields`."""
    for element, below in fields.items():
        if element.startswith("k:") and json.loads(element[2:]).items() <= item.items():
            return {key: inner for key, inner in below.items() if key != "."}
    raise AssertionError(f"nobody owns {item}")


def applied(state: Object, manager: str) -> Object:
    """What a manager applied, read from what it owns, and the groups of workers as they were before the
    operator wrote them back.
    """
    part: Object = only(state, owned(state)[f"{manager} Apply"])
    part = {**part, "apiVersion": state["apiVersion"], "kind": state["kind"]}
    part["metadata"] = {**part["metadata"], "name": state["metadata"]["name"]}
    place = {"RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}[state["kind"]]
    groups = state["spec"][place]["workerGroupSpecs"]
    without = [
        {key: value for key, value in group.items() if key not in ("scaleStrategy", "numOfHosts", "priority")}
        for group in groups
    ]
    part["spec"][place]["workerGroupSpecs"] = without
    return part


def writes(states: list[Object]) -> Iterator[tuple[Object | None, Object, list[Manager]]]:
    """States with the one before and with who has written in between, where each has written one part."""
    last: dict[str, Object] = {}
    for state in states:
        before = last.get(state["metadata"]["uid"])
        last[state["metadata"]["uid"]] = state
        known = {each.id: each.time for each in ownership.managers(before)}
        writers = [each for each in ownership.managers(state) if known.get(each.id) != each.time]
        parts = [each.subresource for each in writers]
        if parts and len(set(parts)) == len(parts) and all(each.operation == "Update" for each in writers):
            yield before, state, sorted(writers, key=lambda writer: writer.subresource)


def replayed(kind: Kind, before: Object | None, after: Object, writers: list[Manager]) -> Object:
    """The later state, reached by the same writes: first of the object, then of its status."""
    state = before
    for writer in writers:
        kept = {} if before is None or "status" not in before else {"status": before["status"]}
        whole = {key: value for key, value in after.items() if key != "status"}
        new = {**(state or {}), "status": after["status"]} if writer.subresource else {**whole, **kept}
        state = (
            ownership.update(kind.schema, state, new, writer)
            if state
            else ownership.create(kind.schema, {}, new, writer)
        )
    assert state is not None
    return state


@pytest.mark.beside
@pytest.mark.parametrize(("name", "least"), [("service", 25), ("job", 25), ("queue", 40), ("volcano", 20)])
def test_each_recorded_write_is_owned_as_it_was_recorded(cluster: FakeCluster, name: str, least: int) -> None:
    kinds, looked = _kinds(cluster), 0
    for before, after, writers in writes(recorded(name, "RayCluster", "RayJob", "RayService")):
        state = replayed(kinds.named(after["kind"], after["apiVersion"]), before, after, writers)
        where = f"{after['kind']} {after['metadata']['name']} {after['metadata']['resourceVersion']}"
        assert owned(state) == owned(after), where
        assert [*owned(state)] == [*owned(after)], f"the order of {where}"
        looked += 1
    assert looked >= least


def _kinds(cluster: FakeCluster) -> Kinds:
    return cluster._backend.kinds


@pytest.mark.beside
def test_the_operator_leaves_groups_that_are_spelled_as_its_types_spell_them() -> None:
    """Kueue's webhook had read and written this job, and so added the empty field, before the
    operator did.
    """
    job = next(
        state for state in recorded("queue", "RayJob") if state["metadata"]["name"].startswith("urgent")
    )
    assert [group["scaleStrategy"] for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]] == [{}]
    assert "f:workerGroupSpecs" in owned(job)["raystack Apply"]["f:spec"]["f:rayClusterSpec"]
    assert [*owned(job)["kuberay-operator Update"]] == ["f:metadata"]


@pytest.mark.beside
@pytest.mark.parametrize(("name", "kind"), [("service", "RayService"), ("job", "RayJob")])
def test_the_operator_takes_the_groups_of_workers_by_writing_them_back(
    cluster: FakeCluster, name: str, kind: str
) -> None:
    real = recorded(name, kind)[0]
    client = Client(kubeconfig=str(cluster.kubeconfig))
    client.apply(applied(real, "raystack"))
    taken = operator.take_up(cluster, kind, real["metadata"]["name"])
    told = cluster.set_status(kind, real["metadata"]["name"], real["status"])
    assert taken["spec"] == real["spec"]
    assert taken["metadata"]["generation"] == real["metadata"]["generation"] == 2
    assert told["metadata"]["generation"] == 2
    assert owned(told) == owned(real)


@pytest.mark.beside
def test_a_forced_apply_takes_them_back_as_it_was_recorded(cluster: FakeCluster, kubectl: Any) -> None:
    states = recorded("service", "RayService")
    forced = next(at for at, state in enumerate(states) if "kubectl Apply" in owned(state))
    before, after = states[forced - 1], states[forced]
    cluster.put(before)
    text = json.dumps(applied(after, "kubectl"))
    refused = kubectl("apply", "--server-side", "-f", "-", stdin=text, fails=True).stderr
    assert 'conflict with "kuberay-operator" using ray.io/v1' in refused.replace(
        "conflicts with", "conflict with"
    )
    assert ".spec.rayClusterConfig.workerGroupSpecs" in refused
    assert ".spec.serveConfigV2" in refused, "raystack has set it to another value"
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
    live = cluster.get("RayService", "digits") or {}
    assert live["spec"] == after["spec"]
    assert live["metadata"]["generation"] == after["metadata"]["generation"]
    status = cluster.update({**live, "status": after["status"]}, operator.OPERATOR, "status")
    assert owned(status) == owned(after)


@pytest.mark.beside
def test_a_recorded_service_is_updated_until_somebody_else_has_taken_it_over(cluster: FakeCluster) -> None:
    client = Client(kubeconfig=str(cluster.kubeconfig))
    states = recorded("service", "RayService")
    forced = next(at for at, state in enumerate(states) if "kubectl Apply" in owned(state))
    config = applied(states[0], "raystack")
    config["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0][
        "image"
    ] = "ray:2"
    cluster.put(states[forced - 1])
    submit(client, [config], wait_s=0)
    live = cluster.get("RayService", "digits") or {}
    assert (
        live["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["image"]
        == "ray:2"
    )
    assert "f:spec" not in owned(live)["kuberay-operator Update"]
    cluster.put(states[forced])
    with pytest.raises(LaunchError) as raised:
        submit(client, [config], wait_s=0)
    assert {problem.rule for problem in raised.value.problems} == {
        ".spec.rayClusterConfig.workerGroupSpecs is set by kubectl",
        ".spec.serveConfigV2 is set by kubectl",
    }


@pytest.mark.parametrize(
    ("made", "place"),
    [
        (manifests.raycluster(), ("spec",)),
        (manifests.rayjob(), ("spec", "rayClusterSpec")),
        (manifests.rayservice(), ("spec", "rayClusterConfig")),
    ],
    ids=["RayCluster", "RayJob", "RayService"],
)
def test_a_write_back_takes_the_whole_list_and_a_status_is_owned_apart(
    cluster: FakeCluster, made: Object, place: tuple[str, ...]
) -> None:
    """The list of groups has no keys in the CRD, so that who adds an empty field owns all of it."""
    kind, name = made["kind"], made["metadata"]["name"]
    Client(kubeconfig=str(cluster.kubeconfig)).apply(made)
    before = owned(cluster.get(kind, name))["raystack Apply"]
    operator.take_up(cluster, kind, name)
    state = owned(cluster.set_status(kind, name, {"observedGeneration": 2}))
    taken: Object = {"f:workerGroupSpecs": {}}
    for key in reversed(place):
        taken = {f"f:{key}": taken}
    finalizer: Object = {".": {}, f'v:"ray.io/{kind.lower()}-finalizer"': {}}
    assert state["kuberay-operator Update"] == {"f:metadata": {"f:finalizers": finalizer}, **taken}
    assert [*state["kuberay-operator Update status"]] == ["f:status"]
    assert "f:observedGeneration" in state["kuberay-operator Update status"]["f:status"]
    assert _below(before, place).keys() - _below(state["raystack Apply"], place).keys() == {
        "f:workerGroupSpecs"
    }


def _below(fields: Object, place: tuple[str, ...]) -> Object:
    for key in place:
        fields = fields[f"f:{key}"]
    return fields


@pytest.mark.parametrize(
    ("kind", "reason", "newer"),
    [
        ("RayCluster", "CreatedHeadPod", True),
        ("Pod", "FailedScheduling", True),
        ("Pod", "BackOff", False),
        ("Job", "SuccessfulCreate", False),
    ],
)
def test_events_are_counted_as_who_writes_them_does(
    cluster: FakeCluster, kind: str, reason: str, newer: bool
) -> None:
    """The operator and the scheduler by the newer API: a series. The others by the older one: a count."""
    about = cluster.put({"kind": kind, "metadata": {"name": "digits"}, "spec": {}})
    counts = []
    for _ in range(2):
        cluster.event(kind, about["metadata"]["name"], reason, "it happened")
        (event,) = cluster.all("Event")
        counts.append((event.get("count"), (event.get("series") or {}).get("count"), "action" in event))
    assert counts == (
        [(None, None, True), (None, 2, True)] if newer else [(1, None, False), (2, None, False)]
    )


def test_what_changes_nothing_is_not_written_at_any_time(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(kubeconfig=str(cluster.kubeconfig))
    first = client.apply(manifests.rayservice())["metadata"]
    monkeypatch.setattr(verbs, "now", lambda: "2099-01-01T00:00:00Z")
    again = client.apply(manifests.rayservice())["metadata"]
    assert (again["resourceVersion"], again["managedFields"]) == (
        first["resourceVersion"],
        first["managedFields"],
    )


def test_what_nobody_is_noted_for_belongs_to_who_came_before_the_first_apply(cluster: FakeCluster) -> None:
    cluster.put(manifests.rayjob(backoffLimit=1))
    client = Client(kubeconfig=str(cluster.kubeconfig))
    with pytest.raises(LaunchError, match=r"backoffLimit is set by before-first-apply"):
        client.apply(manifests.rayjob(backoffLimit=2))
    with pytest.raises(LaunchError, match=r"backoffLimit is set by before-first-apply"):
        submit(client, [manifests.rayjob(backoffLimit=2)], wait_s=0)
    kept = cluster.get("RayJob", manifests.rayjob()["metadata"]["name"])
    assert kept is not None
    assert kept["spec"]["backoffLimit"] == 1


@pytest.mark.beside
@pytest.mark.parametrize(
    ("name", "kind", "reason", "writer"),
    [
        ("job", "RayCluster", "CreatedHeadPod", "kuberay-operator"),
        ("job", "Pod", "FailedScheduling", "sched"),
        ("job", "Job", "SuccessfulCreate", "kcm"),
    ],
)
def test_events_have_the_form_in_which_they_were_recorded(
    cluster: FakeCluster, name: str, kind: str, reason: str, writer: str
) -> None:
    every = [
        each
        for each in recorded(name, "Event")
        if each["involvedObject"]["kind"] == kind and _writer(each) == writer
    ]
    real = next(each for each in every if "series" not in each and each.get("count", 1) == 1)
    about = cluster.put({"kind": kind, "metadata": {"name": "digits"}, "spec": {}})
    cluster.event(kind, about["metadata"]["name"], reason, "it happened")
    (event,) = cluster.all("Event")
    assert event.keys() == real.keys()
    assert {key for key, value in event.items() if not value} == {
        key for key, value in real.items() if not value
    }
    assert event["involvedObject"].keys() == real["involvedObject"].keys()
    cluster.event(kind, about["metadata"]["name"], reason, "it happened")
    (event,) = cluster.all("Event")
    assert event.get("count") == (None if "action" in real else 2)
    assert (event.get("series") or {}).get("count") == (2 if "action" in real else None)


def _writer(event: Object) -> str:
    return str(event["metadata"]["managedFields"][0]["manager"])
