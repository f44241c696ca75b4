"""Rules of the API server on numbers of a pod, and on settings that exclude each other."""

import ipaddress
from collections.abc import Iterator, Mapping

from raystack.kuberay.lint.forms import PORT_NAME, misfit
from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import NO_PODS, Breach, rule
from raystack.kuberay.lint.rules.containers import PROBES
from raystack.kuberay.lint.subject import PodSubject

USERS = {"securityContext.runAsUser": 0, "securityContext.runAsGroup": 0}
OF_PODS: Mapping[str, int] = {
    **USERS,
    "securityContext.fsGroup": 0,
    "terminationGracePeriodSeconds": 0,
    "activeDeadlineSeconds": 1,
}
OF_CONTAINERS: Mapping[str, int] = {
    **USERS,
    **{
        f"{probe}.{name}": least
        for probe in PROBES[:3]
        for name, least in {
            **dict.fromkeys(("initialDelaySeconds", "timeoutSeconds", "periodSeconds"), 0),
            **dict.fromkeys(("successThreshold", "failureThreshold"), 0),
            "terminationGracePeriodSeconds": 1,
        }.items()
    },
}
"""Numbers with the least that they may be."""
ONCE = ("livenessProbe", "startupProbe")


@rule(
    "RS154",
    on=PodSubject,
    says="numbers of a pod are in their range",
    why=NO_PODS,
    remedy="correct it",
)
def numbers(pod: PodSubject, operator: Operator) -> Iterator[Breach]:
    yield from _below(pod.spec, OF_PODS)
    for container in [*pod.containers, *pod.further]:
        yield from _below(container, OF_CONTAINERS)
        for name in ONCE:
            threshold = container.at(name, "successThreshold")
            if (threshold.number or 0) > 1:
                yield Breach(threshold, says=f"successThreshold of a {name} is 1", remedy="drop it")
        for path in PROBES:
            for handler in ("httpGet", "tcpSocket", "grpc"):
                yield from (
                    Breach(port) for port in container.find(f"{path}.{handler}.port") if _no_port(port)
                )
            for command in container.find(f"{path}.exec"):
                if not command["command"].items:
                    yield Breach(command["command"], says="exec has a command", remedy="give it as a list")


@rule(
    "RS155",
    on=PodSubject,
    says="settings of a pod go together",
    why=NO_PODS,
    remedy="drop one of them",
)
def together(pod: PodSubject, operator: Operator) -> Iterator[Breach]:
    spec = pod.spec
    if spec["dnsPolicy"].text == "None" and not spec.at("dnsConfig", "nameservers").items:
        yield Breach(spec["dnsPolicy"], says="dnsPolicy None has dnsConfig.nameservers", remedy="give them")
    if spec["hostPID"].true and spec["shareProcessNamespace"].true:
        yield Breach(spec["shareProcessNamespace"], says="hostPID excludes shareProcessNamespace")
    for alias in spec["hostAliases"].items:
        if alias["ip"].text and not _is_address(alias["ip"].text):
            yield Breach(alias["ip"], says=f"{alias['ip'].text} is no address", remedy="correct it")
    for holder in [spec, *pod.containers, *pod.further]:
        context = holder["securityContext"]
        if context.at("seccompProfile", "type").text == "Localhost":
            profile = context.at("seccompProfile", "localhostProfile")
            if not profile.text:
                yield Breach(profile, says="a profile of the node is named", remedy="give localhostProfile")
        escalation = context["allowPrivilegeEscalation"]
        added = {each.text.removeprefix("CAP_") for each in context.at("capabilities", "add").items}
        if escalation.value is False and (context["privileged"].true or "SYS_ADMIN" in added):
            yield Breach(escalation, says="privileged and SYS_ADMIN exclude allowPrivilegeEscalation: false")


def _below(node: Node, table: Mapping[str, int]) -> Iterator[Breach]:
    for path, least in table.items():
        for each in node.find(path):
            if each.number is not None and each.number < least:
                yield Breach(each, says=f"{each.keys[-1]} is at least {least}")


def _no_port(port: Node) -> bool:
    if port.number is not None:
        return not 0 < port.number < 65536
    return port.value == "" or misfit(port, PORT_NAME)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
