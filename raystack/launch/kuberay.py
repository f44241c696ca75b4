"""Remote for objects of KubeRay: RayJob, RayService, RayCluster and RayCronJob.

In: a Client, a kind and a name. Out: the methods of Remote.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from raystack.errors import LaunchError, Problem, RaystackError
from raystack.kuberay.actions.doctor import refuse_missing
from raystack.kuberay.actions.prepare import Prepared
from raystack.kuberay.actions.scale import scale, scale_service
from raystack.kuberay.actions.submit import submit
from raystack.kuberay.actions.suspend import resume, suspend
from raystack.kuberay.api.client import Client, ForbiddenError
from raystack.kuberay.api.kinds import Object
from raystack.kuberay.observe import logs
from raystack.kuberay.observe.archive import archive
from raystack.kuberay.observe.bundle import bundle
from raystack.kuberay.observe.diagnose import diagnose
from raystack.kuberay.observe.reader import observe
from raystack.kuberay.observe.snapshot import KINDS, Snapshot, at
from raystack.kuberay.observe.status import status
from raystack.launch import remains
from raystack.launch.remains import Remains
from raystack.runs import kept, ledger
from raystack.status import Diagnosis, LogLine, ObjectKind, Status

LOOK_S = 5.0
"""Interval at which pods and events are read while the object itself does not change."""


@dataclass(frozen=True)
class KubeRemote:
    """One object of KubeRay; nothing is requested before a method is called."""

    client: Client
    kind: ObjectKind
    name: str
    kept: Path = Path("raystack-logs")
    """Folder for logs of deleted objects, with a folder for each name."""
    storage: str | None = None
    """`experiment.storage`, where a run that is gone is looked for; None: nowhere."""

    def status(self, thing: Object | None = None) -> Status:
        """Return the current status; `thing` is the object if it was already read.

        That of a run that is gone is its last one, from its folder.
        """
        snapshot = self._observe(thing)
        current = self._status(snapshot)
        if snapshot.folder is not None and thing is None:
            current = replace(current, spent=ledger.spent(snapshot.folder))
        left = self._remains() if current.phase == "gone" else None
        return current if left is None else replace(left.status(), namespace=current.namespace)

    def accepted(self) -> Status:
        """Return the status of an object that was just accepted, even if it cannot be read."""
        try:
            return self.status()
        except LaunchError as error:
            self.client.left_out([str(error)])
            return Status(
                self.kind, self.name, "starting", "it was accepted, and cannot be read", self.client.namespace
            )

    def watch(self, timeout_s: float | None = None) -> Iterator[Status]:
        """Yield the status now and after every change.

        Ends when the object is finished, when it is not a job and runs, or at the deadline.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        last: Status | None = None
        while True:
            left = LOOK_S if deadline is None else min(LOOK_S, max(0.0, deadline - time.monotonic()))
            for thing in self.client.watch(KINDS[self.kind], self.name, timeout_s=left):
                snapshot = self._observe(thing)
                current = self._status(snapshot)
                if current.phase == "gone" and (remaining := self._remains()) is not None:
                    current = replace(remaining.status(), namespace=current.namespace)
                elif current.finished and current != last:
                    self._keep(snapshot)
                if current != last:
                    yield current
                    last = current
                if current.finished or (self.kind != "rayjob" and current.phase == "running"):
                    return
            if deadline is not None and time.monotonic() >= deadline:
                return

    def logs(self, *, follow: bool, everything: bool) -> Iterator[LogLine]:
        """Yield lines of the driver, of the head for clusters and services, or of all containers."""
        snapshot = self._observe()  # says what may not be read, and so has no log here
        if snapshot.thing is None and (left := self._remains()) is not None:
            return left.logs(everything=everything)
        read = logs.follow if follow else logs.read
        return read(self.client, self.kind, self.name, everything=everything)

    def diagnose(self) -> Diagnosis:
        """Return why it does not run, or that it does."""
        snapshot = observe(self.client, self.kind, self.name)
        if snapshot.thing is None and (left := self._remains()) is not None:
            return left.diagnose()
        return diagnose(snapshot, time.time())

    def cancel(self) -> Status:
        """Delete it and its cluster, after archiving logs and events."""
        snapshot = self._observe()
        before = self._status(snapshot)
        if snapshot.thing is None:
            return before
        self._refuse_owned(snapshot, "cancel")
        phase = before.phase if before.finished else "stopped"
        controller = bundle(snapshot.thing)
        again = f", and {controller} makes it again while its bundle has it" if controller else ""
        ended = replace(
            before, phase=phase, reason=f"it was deleted{again}", ready=None, wanted=None, links={}
        )
        folder = archive(self.client, snapshot, ended, self.kept / self.name, time.time())
        there = self._put(snapshot, folder)
        self.client.delete(KINDS[self.kind], self.name)
        return replace(ended, links={"logs": str(folder), **({"kept": there} if there else {})})

    def suspend(self) -> Status:
        """Delete its pods and keep the object; for a queued object, the queue removes the pods."""
        snapshot = self._there()
        self._refuse_owned(snapshot, "suspend")
        return self._status(self._observe(suspend(self.client, snapshot, self._status(snapshot))))

    def resume(self) -> Status:
        """Continue after `suspend`. A RayCronJob then catches up on the runs it missed."""
        snapshot = self._there()
        return self._status(self._observe(resume(self.client, snapshot, self._status(snapshot))))

    def scale(self, workers: int, group: str | None = None, model: str | None = None) -> Status:
        """Set the number of worker pods, and of a service's replicas on them.

        The next cluster of a service has that number, too, and the next one of a job the configured number.
        """
        snapshot = self._there()
        if snapshot.cluster is None or snapshot.kind == "raycronjob":
            rule = "a schedule has no pods" if snapshot.kind == "raycronjob" else "it has no cluster now"
            raise LaunchError(
                Problem(snapshot.reference, rule=rule, remedy="set resources.workers, and submit it again")
            )
        if snapshot.queue is not None:
            rule = f"queue {snapshot.queue} has admitted it with the workers that it has"
            raise LaunchError(
                Problem(snapshot.reference, rule=rule, remedy="set resources.workers, and submit it again")
            )
        if model is not None and self.kind != "rayservice":
            raise LaunchError(
                Problem(snapshot.reference, rule="only a service has models", remedy="drop --model")
            )
        if snapshot.thing is not None and self.kind == "rayservice":
            scale_service(self.client, snapshot.thing, workers, group, model)
        else:
            scale(self.client, at(snapshot.cluster, "metadata", "name"), workers, group)
        return self.status()

    def _remains(self) -> Remains | None:
        return remains.find(self.kind, self.name, self.storage)

    def _keep(self, snapshot: Snapshot) -> None:
        """Archive what has ended into its run's folder, if there is one that is reached from here."""
        if snapshot.folder is None:
            return
        with tempfile.TemporaryDirectory() as folder:
            archive(self.client, snapshot, self._status(snapshot), folder, time.time())
            self._put(snapshot, Path(folder))

    def _put(self, snapshot: Snapshot, folder: Path) -> str | None:
        """Copy an archive into the run's folder, and return where it is; None if it is not there."""
        try:
            return kept.put(snapshot.folder, folder) if snapshot.folder is not None else None
        except (RaystackError, OSError) as error:  # the copy on this machine is there
            self.client.left_out([f"logs could not be kept in {snapshot.folder}: {error}"])
            return None

    def _observe(self, thing: Object | None = None) -> Snapshot:
        snapshot = observe(self.client, self.kind, self.name, thing)
        self.client.left_out(snapshot.unread)
        return snapshot

    def _status(self, snapshot: Snapshot) -> Status:
        return status(snapshot, time.time())

    def _there(self) -> Snapshot:
        snapshot = self._observe()
        if snapshot.thing is None:
            raise LaunchError(
                Problem(
                    snapshot.reference,
                    rule="there is none",
                    remedy="see what there is with `raystack status`",
                )
            )
        return snapshot

    def _refuse_owned(self, snapshot: Snapshot, verb: str) -> None:
        """Raise LaunchError for a cluster that belongs to a job or service."""
        # The owner would recreate the cluster, or fail without it.
        owners = at(snapshot.thing, "metadata", "ownerReferences") or ()
        owner = next((owner for owner in owners if owner.get("kind") in ("RayJob", "RayService")), None)
        if self.kind == "raycluster" and owner is not None:
            name = f"{owner['kind'].lower()}/{owner['name']}"
            raise LaunchError(
                Problem(snapshot.reference, rule=f"it belongs to {name}", remedy=f"raystack {verb} {name}")
            )


def send(client: Client, prepared: Prepared, *, force: bool = False) -> Status:
    """Send what was prepared, and return once it is accepted.

    Raises LaunchError if it is rejected and, without `force`, if something that it needs is not there.
    """
    if not force:
        refuse_missing(client, prepared)
    prepared.put()
    name = submit(client, prepared.manifests)
    kind = prepared.plan.kind
    if kind == "CronJob":
        look = {
            "schedule": f"kubectl get cronjob {name} -n {client.namespace}",
            "jobs": f"raystack status -n {client.namespace}",
        }
        reason = "a CronJob creates its RayJobs, in the queue"
        return Status("raycronjob", name, "running", reason, client.namespace, links=look)
    short = next(short for short, written in KINDS.items() if written == kind)
    return KubeRemote(client, short, name).accepted()


def statuses(client: Client) -> list[Status]:
    """Return the status of all objects of KubeRay, except clusters that have an owner.

    Raises LaunchError if none of the kinds can be listed.
    """
    known = client.served()
    kinds = {
        kind: written for kind, written in KINDS.items() if written in known
    }  # an older KubeRay has no RayCronJob
    found: list[Status] = []
    refused: list[ForbiddenError] = []
    for kind, written in kinds.items():
        try:
            listed = client.list(written)
        except ForbiddenError as error:
            refused.append(error)
            continue
        alone = [each for each in listed if not each["metadata"].get("ownerReferences")]
        found += [KubeRemote(client, kind, each["metadata"]["name"]).status(each) for each in alone]
    if refused and len(refused) == len(kinds):
        raise LaunchError([problem for error in refused for problem in error.problems])
    client.left_out(str(error) for error in refused)
    return found
