"""A submission, as a program holds it. In: the Status that was accepted. Out: its outcome."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from raystack.errors import LaunchError, Problem
from raystack.launch.remote import ClusterRef, Sent, find
from raystack.outcome import Outcome
from raystack.plan import PredictPlan, ServePlan
from raystack.plan.target import run_of
from raystack.runs import ending
from raystack.status import Diagnosis, JobHandle, LogLine, ObjectKind, Status


@dataclass(frozen=True)
class Submission:
    """A run, a study, a prediction or a service that was accepted elsewhere.

    Nothing stays open between two calls.
    """

    accepted: Status
    """Its status when it was accepted."""
    where: ClusterRef
    plan: Sent
    """The submitted plan."""

    @property
    def kind(self) -> ObjectKind:
        return self.accepted.kind

    @property
    def reference(self) -> str:
        """Return `kind/name`, as `raystack status` takes it."""
        return f"{self.accepted.kind}/{self.accepted.name}"

    @cached_property
    def handle(self) -> JobHandle:
        """The handle with all operations on it."""
        return find(self.reference, self.where)

    def __repr__(self) -> str:
        return f"Submission({self.accepted.line!r})"

    def status(self) -> Status:
        """Return its current status."""
        return self.handle.status()

    def watch(self, timeout_s: float | None = None) -> Iterator[Status]:
        """Yield its status now and after every change, until it has ended or the time is over."""
        return self.handle.watch(timeout_s)

    def wait(self, timeout_s: float | None = None) -> Status:
        """Return its last status, when it has ended (a service: when it answers) or after `timeout_s`."""
        last = self.accepted
        for status in self.handle.watch(timeout_s):
            last = status
        return last

    def logs(self, *, follow: bool = False, everything: bool = False) -> Iterator[LogLine]:
        """Yield the log of its driver, or of all pods with `everything`; with `follow` until it has ended."""
        return self.handle.logs(follow=follow, everything=everything)

    def diagnose(self) -> Diagnosis:
        """Return why it does not run, or that it does."""
        return self.handle.diagnose()

    def cancel(self) -> Status:
        """Stop it and release its resources, after its logs were archived."""
        return self.handle.cancel()

    def outcome(self, timeout_s: float | None = None) -> Outcome:
        """Wait for the end of the run or study, and read its Outcome from its storage.

        Raises the run's error. Raises LaunchError if it has not ended in time, leaves no Outcome, or left it
        where this machine cannot read it.
        """
        self.wait(timeout_s).raise_for_status()
        if isinstance(self.plan, PredictPlan):
            rule = "a prediction has no outcome of its own: its folder has a manifest"
            raise LaunchError(Problem(self.reference, rule=rule, got=self.plan.request.out))
        if isinstance(self.plan, ServePlan) or run_of(self.plan) is None:
            rule = "a service stays, and a schedule starts new runs: they have no outcome of their own"
            raise LaunchError(Problem(self.reference, rule=rule))
        found = ending.read(self.plan.paths.folder)
        if found is None:
            rule = "it has ended, and its outcome is not where this machine looks"
            remedy = "use a storage that both reach, such as s3://"
            raise LaunchError(Problem(self.plan.paths.outcome, rule=rule, remedy=remedy))
        return found.outcome
