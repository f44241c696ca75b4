"""Rules on rayStartParams, of which the operator makes the command that starts Ray.

`true` becomes a bare `--key`, and with `false` the option is left out, but for options that take these words.
"""

import re
from collections.abc import Iterator

from raystack.errors import nearest
from raystack.kuberay.lint.devices import after_shell, quoted
from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.ray_options import OLD, OPTIONS, TAKE_FALSE, TRUTHS, wrong
from raystack.kuberay.lint.rule import Breach, rule
from raystack.kuberay.lint.subject import ClusterSubject, GroupSubject
from raystack.plan.kuberay.facts import PORTS

STARTS = "`ray start` refuses it, and the pod restarts again and again"
NEWER_RAY = "2.61.0"
"""First Ray whose options are not known here."""
HEAD_ONLY = ("port", "redis-shard-ports", "include-dashboard", "head")
LOCAL = ("localhost", "127.0.0.1", "::1")


@rule(
    "RS729",
    on=ClusterSubject,
    says="resources in rayStartParams are JSON, quoted for a shell",
    why="they are part of the command that starts Ray, which then fails",
    remedy=f"{quoted('special').removeprefix('set ')}, or use the group's resources",
)
def quoted_resources(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for _, name, value in _given(cluster):
        if OPTIONS.get(name) == "json" and after_shell(value.text) is None:
            yield Breach(value, says=f"{name} in rayStartParams is JSON, quoted for a shell")


@rule(
    "RS732",
    on=ClusterSubject,
    says="`ray start` has the option",
    why=STARTS,
    remedy="drop it",
)
def options(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for group, name, value in _given(cluster):
        if name not in OPTIONS:
            meant = nearest(name.strip("-").replace("_", "-").lower(), OPTIONS)
            old = name in OLD
            # The operator drops what is false: it never reaches Ray.
            dropped = value.text.lower() == "false"
            unsure = old or dropped or (meant is None and cluster.has_ray(NEWER_RAY))
            yield Breach(
                value,
                says=f"`ray start` has{' no longer' if old else ' no'} option --{name}",
                remedy=f"did you mean {meant}?" if meant and not old else None,
                level="warning" if unsure else None,
            )
        elif group is not cluster.head and name in HEAD_ONLY and value.text.lower() != "false":
            yield Breach(value, says=f"--{name} is an option of the head alone")


@rule(
    "RS733",
    on=ClusterSubject,
    says="an option of `ray start` has a value that it takes",
    why=STARTS,
    remedy="correct it",
)
def values(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for _, name, value in _given(cluster):
        # A word with a variable is known in the pod alone.
        if OPTIONS.get(name, "json") == "json" or re.search(r"[$`]", value.text):
            continue
        if (found := wrong(name, value.text)) is not None:
            says, remedy = found
            yield Breach(value, says=f"{name} {says} (got {value.text!r})", remedy=remedy)


@rule(
    "RS734",
    on=ClusterSubject,
    says="an option with the value false is passed on",
    why="the operator drops it, and Ray goes by its default",
    remedy="drop it",
    level="warning",
)
def dropped(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    for _, name, value in _given(cluster):
        if value.text.lower() == "false" and name in OPTIONS and name not in TAKE_FALSE:
            says = "block is always on" if name == "block" else f"--{name}=false is not passed on"
            yield Breach(value, says=says)


@rule(
    "RS735",
    on=ClusterSubject,
    kinds=("RayJob", "RayService", "RayCronJob"),
    says="the head's dashboard can be reached",
    why="the operator submits and asks through it, and the job or service never starts",
    remedy="drop it",
)
def dashboard(cluster: ClusterSubject, operator: Operator) -> Iterator[Breach]:
    head = cluster.head.params if cluster.started_by_operator(cluster.head) else Node(None)
    if TRUTHS.get(head["include-dashboard"].text.lower()) is False:
        yield Breach(head["include-dashboard"], says="the head has a dashboard")
    if head["dashboard-host"].text in LOCAL:
        yield Breach(head["dashboard-host"], says="the dashboard listens outside of the pod, too")
    ports = {port["name"].text: port["containerPort"].number for port in cluster.head.ray["ports"].items}
    listed = ports.get("dashboard", None if ports else PORTS["dashboard"])
    port = head["dashboard-port"]
    if port.text.isdecimal() and listed is not None and int(port.text) != listed:
        remedy = f"list it as containerPort {port.text} with the name dashboard, or drop dashboard-port"
        yield Breach(port, says=f"the port named dashboard is {listed}", remedy=remedy)


def _given(cluster: ClusterSubject) -> Iterator[tuple[GroupSubject, str, Node]]:
    """Yield the parameters that become options, with their group."""
    for group in cluster.groups:
        for name, value in group.params.fields.items() if cluster.started_by_operator(group) else ():
            # Sizes of the group's resources take the place of the parameters.
            if isinstance(value.value, str) and not (group.resources and value.text == ""):
                yield group, name, value
