"""What `train` and `serve` do where the target is elsewhere: submit, say how to go on, and wait if
asked to.
"""

import shlex

from raystack.cli.arguments import Arguments
from raystack.cli.remote import commands, show_status, show_submitted, wait
from raystack.cli.terminal import say
from raystack.config.target import Local
from raystack.launch import remote
from raystack.launch.remote import ClusterRef
from raystack.plan import ServePlan, TrainPlan


def submit(arguments: Arguments, plan: TrainPlan | ServePlan) -> None:
    """Raises what the end of it means where it was waited for."""
    assert not isinstance(plan.config.target, Local), "it would run here"
    where = ClusterRef.of(plan.config.target)
    status = remote.submit(plan, resumed(arguments))
    place = options(where, job=status.kind == "job")
    if not arguments.wait:
        show_submitted(status, place, as_json=arguments.json)
        return
    reference = f"{status.kind}/{status.name}"
    say(f"submitted {reference}")
    try:
        last = wait(
            remote.find(reference, where),
            timeout_s=arguments.timeout_s,
            follow=status.kind in ("job", "rayjob"),
        )
    except KeyboardInterrupt:
        known = commands(status, place)
        say(f"{reference} goes on; follow it with `{known['log']}`, stop it with `{known['cancel']}`")
        raise
    if last.finished:
        show_status(last, as_json=arguments.json)
    else:
        show_submitted(last, place, as_json=arguments.json)
    remote.raise_for_status(last)


def resumed(arguments: Arguments) -> tuple[str, ...]:
    """What the driver is to be told of the run to go on with, in the words of its own command line."""
    if arguments.run is not None:
        return ("--run", arguments.run)
    return ("--resume",) if arguments.resume else ()


def options(where: ClusterRef, *, job: bool) -> str:
    """What a command needs to find the same place, with a space before it; nothing where it is the
    default.
    """
    known = (
        [("--address", where.address), ("--token-from", where.token)]
        if job
        else [
            ("-n", where.namespace if where.namespace != "default" else None),
            ("--context", where.context),
            ("--kubeconfig", where.kubeconfig),
        ]
    )
    return "".join(f" {option} {shlex.quote(value)}" for option, value in known if value is not None)
