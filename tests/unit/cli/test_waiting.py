"""Waiting for something that runs elsewhere: what is said, when it ends, and what its end means."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from raystack.cli.submitting import place_options
from raystack.cli.terminal import Terminal, commands
from raystack.errors import ConfigError, LaunchError, PausedError, RaystackError, ServingError, TrainingError
from raystack.launch.remote import ClusterRef, split
from raystack.status import Diagnosis, JobHandle, LogLine, Phase, Status


def moment(phase: Phase, reason: str = "", attempt: int = 1) -> Status:
    return Status("rayjob", "digits", phase, reason, attempt=attempt)


@dataclass
class Played:
    """A job that goes through moments; each log is followed until its attempt has ended."""

    moments: list[Status]
    log: list[str] = field(default_factory=list)
    followed: int = 0
    read: threading.Event = field(default_factory=threading.Event)

    def status(self) -> Status:
        return self.moments[0]

    def watch(self, timeout_s: float | None = None) -> Iterator[Status]:
        for one in self.moments:
            if one.finished and self.followed:
                assert self.read.wait(5)
            yield one

    def logs(self, *, follow: bool, everything: bool) -> Iterator[LogLine]:
        self.followed += follow
        yield from (LogLine("driver", line) for line in self.log)
        self.read.set()

    def diagnose(self) -> Diagnosis:
        raise NotImplementedError

    def cancel(self) -> Status:
        raise NotImplementedError

    def suspend(self) -> Status:
        raise NotImplementedError

    def resume(self) -> Status:
        raise NotImplementedError

    def scale(self, workers: int, group: str | None = None, model: str | None = None) -> Status:
        raise NotImplementedError


def test_changes_and_the_log_are_said_until_it_has_ended(capsys: pytest.CaptureFixture[str]) -> None:
    job: JobHandle = Played(
        [moment("queued"), moment("starting"), moment("starting"), moment("running"), moment("succeeded")],
        ["step 1", "step 2"],
    )
    assert Terminal(as_json=False).wait(job, timeout_s=None, follow=True).phase == "succeeded"
    said = capsys.readouterr()
    assert said.out == ""
    assert [line.split()[-1] for line in said.err.splitlines() if " is " in line] == [
        "queued",
        "starting",
        "running",
        "succeeded",
    ]
    assert "step 1" in said.err
    assert "step 2" in said.err


def test_the_log_of_what_ended_before_it_was_seen_running_is_said_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = Played([moment("starting"), moment("failed", "boom")], ["error: boom"])
    Terminal(as_json=False).wait(job, timeout_s=None, follow=True)
    assert "error: boom" in capsys.readouterr().err.splitlines()
    assert job.followed == 0


@pytest.mark.parametrize(
    ("status", "error", "line"),
    [
        (
            moment("failed", "error: step 3: not finite"),
            TrainingError,
            "rayjob/digits: step 3: not finite; see `raystack logs rayjob/digits`",
        ),
        (
            replace(moment("stopped", "it stopped on request, with a checkpoint"), exit_code=75),
            PausedError,
            "submit it with --resume",
        ),
        (
            replace(moment("failed", "paused: step 5: stopped by SIGTERM"), exit_code=75),
            PausedError,
            "step 5: stopped by SIGTERM",
        ),
        (
            replace(moment("failed", "no such version"), kind="rayservice"),
            ServingError,
            "rayservice/digits: no such version",
        ),
        (moment("stopped", "it was cancelled"), LaunchError, "it was cancelled"),
        (moment("invalid", "no such field"), LaunchError, "no such field"),
        (moment("gone"), LaunchError, "it is gone"),
        (
            moment("starting", "no image"),
            LaunchError,
            "has not ended in the time given, and is starting: no image; it goes on",
        ),
        (moment("running"), LaunchError, "has not ended in the time given"),
    ],
    ids=lambda value: value.phase if isinstance(value, Status) else "",
)
def test_an_end_that_is_no_success_is_an_error_with_its_exit_code(
    status: Status, error: type[RaystackError], line: str
) -> None:
    with pytest.raises(error) as raised:
        status.raise_for_status()
    assert type(raised.value) is error
    assert line in str(raised.value)


def test_success_is_none_and_so_is_a_service_that_answers() -> None:
    moment("succeeded").raise_for_status()
    Status("rayservice", "digits", "running").raise_for_status()


@pytest.mark.parametrize(
    ("reference", "remedy"),
    [
        ("digits", "write rayjob/digits"),
        ("rayjbo/digits", "did you mean rayjob/digits?"),
        ("rayjob/", "did you mean rayjob/NAME?"),
        ("pod/x", "the kinds are"),
    ],
)
def test_a_reference_that_is_none_is_told_the_nearest(reference: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match="should be KIND/NAME") as raised:
        split(reference)
    assert remedy in str(raised.value)


def test_a_reference_is_a_kind_and_a_name() -> None:
    assert split("RayJob/digits-1") == ("rayjob", "digits-1")
    assert split("job/raysubmit_x") == ("job", "raysubmit_x")


def test_the_commands_to_go_on_with_lead_to_the_same_place(capsys: pytest.CaptureFixture[str]) -> None:
    where = ClusterRef(namespace="team", context="a b")
    assert (
        commands(moment("running"), place_options(where, job=False))["log"]
        == "raystack logs -f rayjob/digits -n team --context 'a b'"
    )
    assert place_options(ClusterRef(address="http://x:1"), job=True) == " --address http://x:1"
    # Another namespace may be that of the kubeconfig's context.
    assert place_options(ClusterRef(namespace="default"), job=False) == " -n default"
    assert place_options(ClusterRef(), job=False) == ""
    Terminal(as_json=False).submitted(moment("starting"), "")
    assert capsys.readouterr().out.splitlines()[0] == "submitted  rayjob/digits"
