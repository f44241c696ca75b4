# ruff: noqa: E501 (what is printed, line by line)
"""What `status`, `diagnose` and `logs` say at every change that a real cluster made: each line was read as a
user reads it.

A thing has a line for each of its moments in which it says something else: its status, then what `diagnose`
says to do.
"""

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
from recorded import Moment, Object, play, told

from raystack.kuberay.observe import logs
from raystack.kuberay.observe.diagnose import diagnose
from raystack.kuberay.observe.reader import observe
from raystack.kuberay.observe.snapshot import KINDS, Snapshot
from raystack.kuberay.observe.status import status
from raystack.plan.kuberay.facts import KUEUE_QUEUE
from raystack.status import ObjectKind

RECORDED = Path(__file__).parents[3] / "shared" / "kuberay" / "recorded"


JOB = """
rayjob/recorded
    starting, 0/2 workers: 0 of 3 pods are ready
        wait: images are pulled
        wait: Ray starts and workers look for the head
        wait: Ray starts
    starting, 0/2 workers: 1 of 3 pods are ready
        wait: Ray starts
    starting, 1/2 workers: 2 of 3 pods are ready
        wait: Ray starts
    starting, 2/2 workers: its cluster is ready, and its driver is submitted next
        wait
    starting, 2/2 workers: its driver is being submitted
        wait
    starting, 2/2 workers: its driver is not started yet
        wait
    running, 2/2 workers
    degraded, 1/2 workers: a worker starts
        wait: workers look for the head
        wait: Ray starts
    running, 2/2 workers
    degraded, 2/2 workers: the head was lost, and a new one starts
        wait: its submitter starts it again on the new head, and it goes on from its newest checkpoint
        target.submission.retries makes a new cluster where that fails, too
    degraded, 1/2 workers: the head was lost, and a new one starts
        wait: its submitter starts it again on the new head, and it goes on from its newest checkpoint
        target.submission.retries makes a new cluster where that fails, too
    degraded, 1/2 workers: a worker runs and is not ready
        wait: Kubernetes starts one again that does not recover
        see its log: raystack logs --all rayjob/recorded
    degraded, 0/2 workers: 2 workers run and are not ready
        wait: Kubernetes starts one again that does not recover
        see its log: raystack logs --all rayjob/recorded
    degraded, 0/2 workers: a worker ended with the head that it belonged to, and starts again
        wait: it joins the new head
    degraded, 0/2 workers: 2 workers run and are not ready
        wait: Kubernetes starts one again that does not recover
        see its log: raystack logs --all rayjob/recorded
    degraded, 0/2 workers: a worker ended with the head that it belonged to, and starts again
        wait: it joins the new head

raycluster/recorded-qvlmg
    starting, 0/2 workers: 0 of 3 pods are ready
        wait: images are pulled
        wait: Ray starts and workers look for the head
        wait: Ray starts
    starting, 0/2 workers: 1 of 3 pods are ready
        wait: Ray starts
    starting, 1/2 workers: 2 of 3 pods are ready
        wait: Ray starts
    running, 2/2 workers
    degraded, 1/2 workers: a worker starts
        wait: workers look for the head
        wait: Ray starts
    running, 2/2 workers
    degraded, 2/2 workers: the head was lost, and a new one starts
        wait for the new one
        see what runs on it: raystack diagnose rayjob/recorded
    degraded, 1/2 workers: the head was lost, and a new one starts
        wait for the new one
        see what runs on it: raystack diagnose rayjob/recorded
    degraded, 1/2 workers: a worker runs and is not ready
        wait: Kubernetes starts one again that does not recover
        see its log: raystack logs --all raycluster/recorded-qvlmg
    degraded, 0/2 workers: 2 workers run and are not ready
        wait: Kubernetes starts one again that does not recover
        see its log: raystack logs --all raycluster/recorded-qvlmg
    degraded, 0/2 workers: a worker ended with the head that it belonged to, and starts again
        wait: it joins the new head
    degraded, 0/2 workers: 2 workers run and are not ready
        wait: Kubernetes starts one again that does not recover
        see its log: raystack logs --all raycluster/recorded-qvlmg
    degraded, 0/2 workers: a worker ended with the head that it belonged to, and starts again
        wait: it joins the new head
"""
"""A worker is deleted, then the head, then `raystack cancel`; the recording ends before the objects are gone.
"""

SERVICE = """
rayservice/digits
    starting: its cluster is being made
        wait
    starting, 0/1 workers: 0 of 2 pods are ready
        wait: Ray starts and workers look for the head
        wait: Ray starts
    starting, 0/1 workers: its head is ready, and its applications are sent there next
        wait
    starting, 0/1 workers: its applications could not be sent yet: context deadline exceeded
        wait: it is tried again
        where it stays so, let the operator reach the head's dashboard: target.security.network_policy
    starting, 0/1 workers: its head is ready, and its applications are deployed next
        wait
    starting, 0/1 workers: application digits is being deployed
        wait: its replicas load the model
    starting, 0/1 workers: its replicas are up, and their pods not ready yet
        wait: Kubernetes checks a pod every few seconds
    running, 1/1 workers
    updating, 1/1 workers: application digits is being deployed
        wait: its replicas load the model
    updating, 0/1 workers: nothing answers: application digits is being deployed
        wait: its replicas load the model
    updating, 1/1 workers: application digits is being deployed
        wait: its replicas load the model
    running, 1/1 workers
    updating, 1/1 workers: it moves to digits-m7fmf: its cluster is being made
        wait
    updating, 1/1 workers: it moves to digits-m7fmf: 0 of 2 pods are ready
        wait: Ray starts and workers look for the head
        wait: Ray starts
    updating, 1/1 workers: it moves to digits-m7fmf: its head is ready, and its applications are sent there next
        wait
    updating, 1/1 workers: it moves to digits-m7fmf: its applications could not be sent yet: context deadline exceeded
        wait: it is tried again
        where it stays so, let the operator reach the head's dashboard: target.security.network_policy
    updating, 1/1 workers: it moves to digits-m7fmf: its head is ready, and its applications are deployed next
        wait
    updating, 1/1 workers: it moves to digits-m7fmf: application digits is being deployed
        wait: its replicas load the model
    degraded, 0/1 workers: nothing answers: its replicas are up, and their pods not ready yet
        wait: Kubernetes checks a pod every few seconds
    running, 1/1 workers
    degraded, 0/1 workers: a worker runs and is not ready
        wait: Kubernetes starts one again that does not recover
        see its log: raystack logs --all rayservice/digits
    degraded, 0/1 workers: nothing answers: the head runs and is not ready
        wait: Kubernetes starts it again where it does not recover
        see its log: raystack logs --all rayservice/digits
    gone: it was deleted
        what `raystack cancel` has kept of it is in raystack-logs/

raycluster/digits-c8xv7
    starting, 0/1 workers: 0 of 2 pods are ready
        wait: Ray starts and workers look for the head
        wait: Ray starts
    starting, 0/1 workers: 1 of 2 pods are ready
        wait: Ray starts
    running, 1/1 workers
    degraded, 0/1 workers: a worker runs and is not ready
        wait: Kubernetes starts one again that does not recover
        see its log: raystack logs --all raycluster/digits-c8xv7
    running, 1/1 workers
    degraded, 1/1 workers: the head runs and is not ready
        wait: Kubernetes starts it again where it does not recover
        see its log: raystack logs --all raycluster/digits-c8xv7
    degraded, 0/1 workers: the head runs and is not ready
        wait: Kubernetes starts it again where it does not recover
        see its log: raystack logs --all raycluster/digits-c8xv7
    gone: it was deleted
        see the job or service that had made it: `raystack status`
        what `raystack cancel` has kept of it is in raystack-logs/

raycluster/digits-m7fmf
    starting, 0/1 workers: 0 of 2 pods are ready
        wait: Ray starts and workers look for the head
        wait: Ray starts
    starting, 0/1 workers: 1 of 2 pods are ready
        wait: Ray starts
    running, 1/1 workers
    degraded, 0/1 workers: a worker runs and is not ready
        wait: Kubernetes starts one again that does not recover
        see its log: raystack logs --all raycluster/digits-m7fmf
    degraded, 0/1 workers: the head runs and is not ready
        wait: Kubernetes starts it again where it does not recover
        see its log: raystack logs --all raycluster/digits-m7fmf
    gone: it was deleted
        see the job or service that had made it: `raystack status`
        what `raystack cancel` has kept of it is in raystack-logs/
"""
"""Updated in place, moved to a second cluster, updated in place to a version that does not exist, cancelled.
The head did not answer before the operator could read why that version cannot be loaded.
"""

QUEUE = """
rayjob/low
    starting, 0/2 workers: 0 of 3 pods are ready
        wait: Ray starts and workers look for the head
        wait: Ray starts
    starting, 0/2 workers: 1 of 3 pods are ready
        wait: Ray starts
    starting, 1/2 workers: 2 of 3 pods are ready
        wait: Ray starts
    starting, 2/2 workers: its driver is being submitted
        wait
    starting, 2/2 workers: its driver is not started yet
        wait
    running, 2/2 workers
    queued: queue team gave its place to rayjob/urgent, and holds it: insufficient unused quota for cpu in flavor any, 4 more needed
        wait: it goes on from its last checkpoint
        target.queue.priority lets it go first
    queued: queue team has just admitted it
        wait: its pods are made next
    starting, 0/2 workers: 0 of 3 pods are ready
        wait: Ray starts and workers look for the head
        wait: Ray starts
    starting, 0/2 workers: 1 of 3 pods are ready
        wait: Ray starts
    starting, 2/2 workers: its driver is being submitted
        wait
    starting, 2/2 workers: its driver is not started yet
        wait
    running, 2/2 workers

raycluster/low-r8m68
    starting, 0/2 workers: 0 of 3 pods are ready
        wait: Ray starts and workers look for the head
        wait: Ray starts
    starting, 0/2 workers: 1 of 3 pods are ready
        wait: Ray starts
    starting, 1/2 workers: 2 of 3 pods are ready
        wait: Ray starts
    running, 2/2 workers
    gone: it was deleted
        see the job or service that had made it: `raystack status`
        what `raystack cancel` has kept of it is in raystack-logs/

rayjob/urgent
    queued: queue team has just admitted it
        wait: its pods are made next
    starting, 0/2 workers: 0 of 3 pods are ready
        wait: Ray starts and workers look for the head
    starting, 0/2 workers: 1 of 3 pods are ready
        wait: Ray starts and workers look for the head
        wait: Ray starts
    starting, 1/2 workers: 2 of 3 pods are ready
        wait: Ray starts
    starting, 2/2 workers: its driver is being submitted
        wait
    starting, 2/2 workers: its driver is not started yet
        wait
    running, 2/2 workers
    succeeded

raycluster/urgent-9d58d
    starting, 0/2 workers: 0 of 3 pods are ready
        wait: Ray starts and workers look for the head
    starting, 0/2 workers: 1 of 3 pods are ready
        wait: Ray starts and workers look for the head
        wait: Ray starts
    starting, 1/2 workers: 2 of 3 pods are ready
        wait: Ray starts
    running, 2/2 workers

raycluster/low-hx8wj
    starting, 0/2 workers: 0 of 3 pods are ready
        wait: Ray starts and workers look for the head
        wait: Ray starts
    starting, 0/2 workers: 1 of 3 pods are ready
        wait: Ray starts
    running, 2/2 workers
"""
"""Kueue runs one job, gives its place to another that has a higher priority, and lets it in again."""

VOLCANO = """
rayjob/first
    starting, 0/2 workers: 0 of 3 pods are ready
        wait: Ray starts and workers look for the head
    starting, 0/2 workers: 1 of 3 pods are ready
        wait: Ray starts
    starting, 2/2 workers: its driver is being submitted
        wait
    starting, 2/2 workers: its driver is not started yet
        wait
    running, 2/2 workers
    stopped: it is being deleted
        wait until it is gone
        submitted again with --resume, it goes on from its last checkpoint
    gone: it was deleted
        submit it with --resume to go on from its last checkpoint
        one that ended by itself is deleted after target.lifetime.ttl_s
        what `raystack cancel` has kept of it is in raystack-logs/

raycluster/first-zzjlc
    starting, 0/2 workers: 0 of 3 pods are ready
        wait: Ray starts and workers look for the head
    starting, 0/2 workers: 1 of 3 pods are ready
        wait: Ray starts
    running, 2/2 workers
    stopped: it is being deleted
        wait until it is gone
    gone: it was deleted
        see the job or service that had made it: `raystack status`
        what `raystack cancel` has kept of it is in raystack-logs/

rayjob/second
    queued, 0/2 workers: queue team holds it: queue resource quota insufficient: insufficient cpu
        wait, ask for less (resources.workers), set target.queue.priority, or have the queue's capability raised
        see it: kubectl get queue team -o yaml
    starting, 0/2 workers: 0 of 3 pods are ready
        wait: Ray starts and workers look for the head
    starting, 0/2 workers: 1 of 3 pods are ready
        wait: workers look for the head
        wait: Ray starts
    starting, 2/2 workers: its driver is being submitted
        wait
    starting, 2/2 workers: its driver is not started yet
        wait
    running, 2/2 workers
    succeeded

raycluster/second-r2zrg
    queued, 0/2 workers: queue team holds it: queue resource quota insufficient: insufficient cpu
        wait, ask for less (resources.workers), set target.queue.priority, or have the queue's capability raised
        see it: kubectl get queue team -o yaml
    starting, 0/2 workers: 0 of 3 pods are ready
        wait: Ray starts and workers look for the head
    starting, 0/2 workers: 1 of 3 pods are ready
        wait: workers look for the head
        wait: Ray starts
    running, 2/2 workers
"""
"""The first job fills the queue; it is cancelled while the second one waits."""


SMALL_JOB = """
rayjob/small
    queued: queue team has not taken notice of it
        see that Kueue is installed and manages this kind: raystack doctor
    queued: queue team holds it: insufficient unused quota for cpu in flavor any, 2 more needed
        wait, ask for less (resources.workers), set target.queue.priority, or have the queue's quota raised
    queued: queue team has just admitted it
        wait: its pods are made next
    starting, 0/1 workers: 0 of 2 pods are ready
        wait: Ray starts
    starting, 0/1 workers: 1 of 2 pods are ready
        wait: Ray starts
    starting, 1/1 workers: its cluster is ready, and its driver is submitted next
        wait
    running, 1/1 workers
    degraded, 0/1 workers: a worker is missing
        wait: the operator makes pods for them
    degraded, 0/1 workers: a worker starts
        wait: Ray starts
    running, 1/1 workers
    degraded, 1/1 workers: the head is lost
        wait: its submitter starts it again on the new head, and it goes on from its newest checkpoint
        target.submission.retries makes a new cluster where that fails, too
    running, 1/1 workers
    succeeded

raycluster/small-c
    starting, 0/1 workers: 0 of 2 pods are ready
        wait: Ray starts
    starting, 0/1 workers: 1 of 2 pods are ready
        wait: Ray starts
    running, 1/1 workers
    degraded, 0/1 workers: a worker is missing
        wait: the operator makes pods for them
    degraded, 0/1 workers: a worker starts
        wait: Ray starts
    running, 1/1 workers
    degraded, 1/1 workers: the head is lost
        wait for the new one
        see what runs on it: raystack diagnose rayjob/small
    running, 1/1 workers
    gone
        see what there is with `raystack status`
        -n names another namespace
"""
"""It waits in a queue, loses a worker and then its head, and succeeds."""

SMALL_SERVICE = """
rayservice/small
    starting: its cluster is being made
        wait
    starting, 0/1 workers: 0 of 2 pods are ready
        wait: Ray starts
    starting, 0/1 workers: its head is ready, and its applications are sent there next
        wait
    starting, 0/1 workers: application small is being deployed
        wait: its replicas load the model
    starting, 1/1 workers: application small is being deployed
        wait: its replicas load the model
    running, 1/1 workers
    updating, 1/1 workers: application small is being deployed
        wait: its replicas load the model
    failed: nothing answers: application small cannot be deployed: The deployment failed to start 3 times in a row: RuntimeError: there is no models:/small/9
        read its log: raystack logs rayservice/small
    gone: it was deleted
        what `raystack cancel` has kept of it is in raystack-logs/

raycluster/small-s
    starting, 0/1 workers: 0 of 2 pods are ready
        wait: Ray starts
    starting, 0/1 workers: 1 of 2 pods are ready
        wait: Ray starts
    running, 1/1 workers
    gone
        see what there is with `raystack status`
        -n names another namespace
"""
"""Updated in place to a version that does not exist, and deleted."""

READ = {"job": JOB, "service": SERVICE, "queue": QUEUE, "volcano": VOLCANO}
SMALL = {"job": SMALL_JOB, "service": SMALL_SERVICE}
EVERY = [
    *(pytest.param(f"told {name}", text, id=f"told-{name}") for name, text in SMALL.items()),
    *(pytest.param(name, text, id=name, marks=pytest.mark.beside) for name, text in READ.items()),
]


def recording(name: str, folder: Path) -> Path:
    """A recording of a real cluster, or one of `stories.yaml`."""
    real, _, story = name.partition(" ")
    return told(story, folder) if story else RECORDED / f"{real}.jsonl"


def things(recording: Path) -> Iterator[tuple[float, Snapshot]]:
    """Every job, service and cluster at every change since it was there; the times of a thing come in
    order.
    """
    known: dict[tuple[ObjectKind, str], None] = {}
    for moment in play(recording):
        for kind, written in KINDS.items():
            known.update(dict.fromkeys((kind, each["metadata"]["name"]) for each in moment.list(written)))
        for kind, name in known:
            yield moment.now, observe(moment.client, kind, name)


def read(recording: Path) -> str:
    """Of each thing its statuses in order, and below each what `diagnose` says to do. Times and random parts
    of names are left out.
    """
    lines: dict[str, list[tuple[str, str]]] = {}
    for now, snapshot in things(recording):
        thing, _, words = status(snapshot, now).line.partition(" is ")
        lines.setdefault(thing, []).append((words, diagnose(snapshot, now).remedy))
    said = []
    for thing, moments in lines.items():
        said.append(f"\n{thing}")
        for words, group in groupby(moments, key=lambda moment: moment[0]):
            remedies = dict.fromkeys(remedy for _, remedy in group if remedy != "nothing")
            said += [
                f"    {words}",
                *(f"        {line}" for remedy in remedies for line in remedy.split("; ")),
            ]
    return re.sub(r"-\d{8}-\d{6}-[0-9a-f]{4}", "", "\n".join(said) + "\n")


ENDS = {"running": "it runs", "succeeded": "it has succeeded"}


@pytest.mark.parametrize(("name", "text"), EVERY)
def test_every_change_is_told_in_words_that_hold(name: str, text: str, tmp_path: Path) -> None:
    assert read(recording(name, tmp_path)).strip().splitlines() == text.strip().splitlines()


@pytest.mark.parametrize(("name", "text"), EVERY)
def test_status_and_diagnosis_are_of_one_mind_and_evidence_is_short(
    name: str, text: str, tmp_path: Path
) -> None:
    """The reason in the status is the cause; nothing is told twice, nor cut."""
    for now, snapshot in things(recording(name, tmp_path)):
        current, found = status(snapshot, now), diagnose(snapshot, now)
        assert current.phase == "gone" or found.cause == (
            current.reason or "nothing is wrong: " + ENDS[current.phase]
        )
        said = [line.partition(": ")[2] for line in found.evidence]
        assert len(set(said)) == len(said) <= 5
        assert not any(text.endswith((",", ":")) for text in (found.cause, found.remedy, *found.evidence))


@pytest.mark.parametrize(
    ("name", "submitters"),
    [
        ("told job", ["1", "2"]),
        pytest.param("job", ["fcpxn", "rx7qc"], marks=pytest.mark.beside),
    ],
)
def test_a_job_has_the_log_of_its_newest_submitter(name: str, submitters: list[str], tmp_path: Path) -> None:
    pods: list[str] = []
    for moment in play(recording(name, tmp_path)):
        for job in moment.list("RayJob"):
            snapshot = observe(moment.client, "rayjob", job["metadata"]["name"])
            pods += [source.key[0] for source in logs.sources(moment.client, snapshot, everything=False)]
    assert [pod.rpartition("-")[2] for pod, _ in groupby(pods)] == submitters


@pytest.mark.parametrize(
    ("name", "service", "after_s"),
    [("told service", "small", 2), pytest.param("service", "digits", 100, marks=pytest.mark.beside)],
)
def test_what_an_earlier_thing_of_that_name_went_through_is_not_told(
    name: str, service: str, after_s: float, tmp_path: Path
) -> None:
    """The namespace still has events of other services of that name."""
    moment = next(moment for moment in play(recording(name, tmp_path)) if moment.t > after_s)
    everything = {event["involvedObject"]["uid"] for event in moment.events("RayService", service)}
    own = observe(moment.client, "rayservice", service).events_of(
        {"kind": "RayService", "metadata": {"name": service}}
    )
    assert len(everything) > 1
    assert len({event["involvedObject"]["uid"] for event in own}) == 1


def test_a_place_in_the_queue_is_told_where_kueue_says_one() -> None:
    """Kueue counts from 0, and says so by an API of its own."""
    job: Object = {
        "kind": "RayJob",
        "metadata": {"name": "digits", "uid": "1", "labels": {KUEUE_QUEUE: "team"}},
        "spec": {"suspend": True},
    }
    waits = {
        "type": "QuotaReserved",
        "status": "False",
        "reason": "Pending",
        "message": "insufficient quota for cpu",
    }
    owner = {"kind": "RayJob", "name": "digits", "uid": "1"}
    made: Object = {
        "kind": "Workload",
        "metadata": {"name": "w", "uid": "2", "ownerReferences": [owner]},
        "status": {"conditions": [waits]},
    }
    items = [
        {"metadata": {"name": "v"}, "positionInLocalQueue": 0},
        {"metadata": {"name": "w"}, "positionInLocalQueue": 1},
    ]
    line: Object = {
        "kind": "PendingWorkloadsSummary",
        "metadata": {"name": "team/pendingworkloads"},
        "items": items,
    }
    moment = Moment(0, 0, {str(number): each for number, each in enumerate((job, made, line))})
    snapshot = observe(moment.client, "rayjob", "digits")
    assert (
        status(snapshot, 0).line
        == "rayjob/digits is queued: queue team holds it, as number 2 in line: insufficient quota for cpu"
    )
