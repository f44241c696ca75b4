"""`python -m raystack.remotes <verb> KIND/NAME`: status, logs, diagnose, cancel, suspend, resume, scale,
connect, gc, doctor.

One module, because they share their form: find something that runs elsewhere, ask it one thing, say what it
answered.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from raystack.cli.arguments import REMOTES, Arguments, parse

if TYPE_CHECKING:
    from raystack.kuberay.observe.connect import What
    from raystack.launch.remote import ClusterRef
    from raystack.status import JobHandle


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return run(parse(None, argv, among=REMOTES, prog="python -m raystack.remotes"))


def run(arguments: Arguments) -> int:
    """Returns the exit status."""
    # Imports follow the parsing, so that --help and a mistyped option do not wait for them.
    from raystack import logs
    from raystack.cli.terminal import guard

    logs.setup(verbose=arguments.verbose)
    verb = {
        "status": _status,
        "logs": _logs,
        "diagnose": _diagnose,
        "cancel": _cancel,
        "suspend": _suspend,
        "resume": _resume,
        "scale": _scale,
        "connect": _connect,
        "gc": _gc,
        "doctor": _doctor,
    }[arguments.verb]
    return guard(lambda: verb(arguments), verbose=arguments.verbose)


def _status(arguments: Arguments) -> None:
    from raystack.cli.remote import show_status, show_statuses, wait
    from raystack.errors import ConfigError, Problem
    from raystack.launch import remote

    if arguments.reference is None:
        if arguments.watch:
            raise ConfigError(
                Problem(
                    "--watch",
                    rule="one thing is watched",
                    remedy="name it: raystack status KIND/NAME --watch",
                )
            )
        show_statuses(remote.everything(_where(arguments)), as_json=arguments.json)
        return
    found = _found(arguments)
    if not arguments.watch:
        show_status(found.status(), as_json=arguments.json)
        return
    last = wait(found, timeout_s=arguments.timeout_s, follow=False)
    if arguments.json:
        show_status(last, as_json=True)
    remote.raise_for_status(last)


def _logs(arguments: Arguments) -> None:
    from raystack.cli.remote import show_logs

    lines = _found(arguments).logs(follow=arguments.follow, everything=arguments.everything)
    show_logs(lines, sources=arguments.everything)


def _diagnose(arguments: Arguments) -> None:
    from raystack.cli.remote import show_diagnosis

    show_diagnosis(_found(arguments).diagnose(), as_json=arguments.json)


def _cancel(arguments: Arguments) -> None:
    from raystack.cli.remote import show_status

    show_status(_found(arguments).cancel(), as_json=arguments.json)


def _suspend(arguments: Arguments) -> None:
    from raystack.cli.remote import show_status

    show_status(_found(arguments).suspend(), as_json=arguments.json)


def _resume(arguments: Arguments) -> None:
    from raystack.cli.remote import show_status

    show_status(_found(arguments).resume(), as_json=arguments.json)


def _scale(arguments: Arguments) -> None:
    from raystack.cli.remote import show_status
    from raystack.errors import ConfigError, Problem

    if arguments.workers < 0:
        raise ConfigError(Problem("WORKERS", rule="should be 0 or more", got=str(arguments.workers)))
    show_status(_found(arguments).scale(arguments.workers), as_json=arguments.json)


def _connect(arguments: Arguments) -> None:
    from raystack.cli.remote import show_doors
    from raystack.cli.terminal import say, wait_for_interrupt
    from raystack.errors import ConfigError, Problem
    from raystack.kuberay.observe.connect import connect
    from raystack.launch.remote import split

    assert arguments.reference is not None, "argparse asks for it"
    kind, name = split(arguments.reference)
    if kind == "job":
        rule = "a job has no address of its own, and its dashboard is at the cluster's"
        raise ConfigError(
            Problem("name", rule=rule, got=arguments.reference, remedy="open the dashboard of --address")
        )
    ports = arguments.to or (("serve", "dashboard") if kind == "rayservice" else ("dashboard",))
    with connect(
        _where(arguments).client(), kind, name, cast("tuple[What, ...]", ports), mlflow=arguments.mlflow
    ) as opened:
        show_doors([(door.what, door.url, door.token) for door in opened], tokens=arguments.token)
        say("connected until Ctrl-C")
        wait_for_interrupt()


def _gc(arguments: Arguments) -> None:
    from raystack.cli.remote import show_leftovers
    from raystack.cli.terminal import say
    from raystack.kuberay.actions.gc import collect, sweep

    client = _where(arguments).client()
    found = collect(client, arguments.older_s, everywhere=arguments.everywhere, everything=arguments.foreign)
    show_leftovers(found, as_json=arguments.json)
    if not arguments.yes:
        if found:
            say("nothing was deleted: --yes does it")
        return
    for folder in sweep(client, found, arguments.keep):
        say(f"logs kept in {folder}")


def _doctor(arguments: Arguments) -> None:
    from raystack import config
    from raystack.cli.remote import show_checks
    from raystack.config.kuberay import KubeRay
    from raystack.errors import ConfigError, LaunchError, Problem
    from raystack.kuberay.actions.doctor import doctor
    from raystack.launch.remote import ClusterRef, forms
    from raystack.plan import plan_kuberay
    from raystack.plan.kuberay.requirements import number

    if not arguments.config:
        checks = doctor(_where(arguments).client())
    else:
        asked = config.load(arguments.config, arguments.overrides)
        if not isinstance(asked.target, KubeRay):
            rule = "only what runs on Kubernetes needs something there"
            raise ConfigError(
                Problem("target", rule=rule, got=asked.target.kind, remedy="add target=kuberay")
            )
        plans = [plan_kuberay(asked, asked.experiment.name, form) for form in forms(asked)]
        every = list(dict.fromkeys(need for plan in plans for need in plan.needs))
        newest = max((need for need in every if need.kind == "version"), key=lambda need: number(need.name))
        needs = [newest, *(need for need in every if need.kind != "version")]
        key = next((plan.group.pod.devices.key for plan in plans if plan.group.pod.devices.count), None)
        checks = doctor(_where(arguments, ClusterRef.of(asked.target)).client(), needs, key)
    show_checks(checks, as_json=arguments.json)
    if missing := [check for check in checks if check.ok is False]:
        raise LaunchError(
            [Problem(check.name, rule=check.found, remedy=check.remedy or None) for check in missing]
        )


def _where(arguments: Arguments, config: "ClusterRef | None" = None) -> "ClusterRef":
    """What was typed; where that says nothing, what a config `config` for."""
    from raystack.launch.remote import ClusterRef

    base = config or ClusterRef()
    return ClusterRef(
        address=arguments.address or base.address,
        namespace=arguments.namespace or base.namespace,
        context=arguments.context or base.context,
        kubeconfig=arguments.kubeconfig or base.kubeconfig,
        token=arguments.token_from or base.token,
    )


def _found(arguments: Arguments) -> "JobHandle":
    from raystack.launch.remote import find

    assert arguments.reference is not None, "argparse asks for it"
    return find(arguments.reference, _where(arguments))


if __name__ == "__main__":
    sys.exit(main())
