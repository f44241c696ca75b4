"""The steps of `train` and `serve` after a submission: show the next commands, and wait if requested."""

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

import raystack
from raystack.cli.options import seconds
from raystack.cli.verb import option

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal
    from raystack.launch.remote import ClusterRef
    from raystack.launch.submission import Submission


@dataclass(frozen=True, kw_only=True)
class Submitting:
    """Options for waiting until a submission has ended."""

    wait: bool = option(
        "--wait",
        help="target=job or kuberay: stay until the run has ended, showing the driver's log, or the service"
        " answers, and end with its exit status",
        exclusive="waiting",
    )
    detach: bool = option(
        "--detach",
        help="submit, or deploy to a running Ray cluster, and leave: the default for target=job and kuberay",
        exclusive="waiting",
    )
    timeout_s: float | None = option(
        "--timeout",
        help="with --wait: stay no longer; it goes on",
        default=None,
        type=seconds,
        metavar="SECONDS",
    )

    force: bool = option(
        "--force", help="target=kuberay: send it although something that it needs is known to be missing"
    )

    def refuse_force(self, kind: str) -> None:
        """Raise ConfigError if --force was given for a target at which nothing is looked for."""
        if self.force and kind != "kuberay":
            rule = f"has no effect on target={kind}"
            raise raystack.ConfigError(raystack.Problem("--force", rule=rule, remedy="drop it"))

    def refuse_waiting(self, rule: str) -> None:
        """Raise ConfigError with `rule` if --wait or --detach was given, which would have no effect."""
        name = "--wait" if self.wait else "--detach" if self.detach else None
        if name is not None:
            remedy = "drop it, or set target=job or kuberay"
            raise raystack.ConfigError(raystack.Problem(name, rule=rule, remedy=remedy))
        self.refuse_timeout()

    def refuse_timeout(self) -> None:
        """Raise ConfigError if --timeout was given without anything to wait for."""
        if self.timeout_s is not None and not self.wait:
            rule, remedy = "bounds a wait, and nothing is waited for", "add --wait, or drop it"
            raise raystack.ConfigError(raystack.Problem("--timeout", rule=rule, remedy=remedy))


def hand_over(submission: "Submission", options: Submitting, terminal: "Terminal") -> None:
    """Show the submission; with --wait follow it, and raise the error that its end stands for."""
    place = place_options(submission.where, job=submission.kind == "job")
    if not options.wait:
        terminal.submitted(submission.accepted, place)
        return
    terminal.say(f"submitted {submission.reference}")
    follow = submission.kind in ("job", "rayjob")
    try:
        last = terminal.wait(submission.handle, timeout_s=options.timeout_s, follow=follow)
    except KeyboardInterrupt:
        name = f"{submission.reference}{place}"
        terminal.say(f"it goes on: `raystack logs -f {name}` follows it, `raystack cancel {name}` stops it")
        raise
    if last.finished:
        terminal.status(last)
    else:
        terminal.submitted(last, place)
    last.raise_for_status()


def place_options(where: "ClusterRef", *, job: bool) -> str:
    """Return the options that lead to the same place, after a space; empty for the default place."""
    known = (
        [("--address", where.address), ("--token-from", where.token)]
        if job
        else [
            ("-n", where.namespace),
            ("--context", where.context),
            ("--kubeconfig", where.kubeconfig),
        ]
    )
    return "".join(f" {flag} {shlex.quote(value)}" for flag, value in known if value is not None)
