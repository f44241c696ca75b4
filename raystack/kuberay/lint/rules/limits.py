"""Rules of the API server on the requests and limits of containers."""

from collections.abc import Iterator

from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.quantity import exactly
from raystack.kuberay.lint.rule import NO_PODS, Breach, rule
from raystack.kuberay.lint.subject import PodSubject
from raystack.plan.kuberay.facts import LABEL_KEY, is_accelerator

NATIVE = ("cpu", "memory", "ephemeral-storage")
HUGE = "hugepages-"


@rule(
    "RS143",
    on=PodSubject,
    says="requests lie within limits, and devices are whole numbers with a limit",
    why=NO_PODS,
    remedy="correct it",
)
def requests(pod: PodSubject, operator: Operator) -> Iterator[Breach]:
    ray = None if pod.node.keys[-1] == "submitterPodTemplate" else pod.spec["containers"][0].keys
    for container in [*pod.containers, *pod.further]:
        resources = container["resources"]
        limits, asked = resources["limits"].fields, resources["requests"].fields
        for key, value in [*limits.items(), *asked.items()]:
            yield from _amount(key, value)
        for key, request in asked.items():
            yield from _within(key, request, limits.get(key), told=container.keys == ray)
        given = {*limits, *asked}
        huge = [value for key, value in {**asked, **limits}.items() if key.startswith(HUGE)]
        if huge and not given & {"cpu", "memory"}:
            yield Breach(huge[0], says="huge pages need an amount of cpu or memory", remedy="add it")


def _amount(key: str, value: Node) -> Iterator[Breach]:
    """Yield what is wrong with one amount."""
    number = exactly(value.value)
    own = key in NATIVE or key.startswith(HUGE)
    if not own and not ("/" in key and LABEL_KEY.fullmatch(key)):
        says, remedy = (
            f"containers have no resource {key}",
            "write cpu, memory or a device such as nvidia.com/gpu",
        )
        yield Breach(value, says=says, remedy=remedy)
    elif number is not None and number < 0:
        yield Breach(value, says="an amount is at least 0")
    elif number is not None and key.startswith(HUGE) and number % (exactly(key.removeprefix(HUGE)) or 1):
        yield Breach(value, says=f"{key} is a multiple of a page", remedy="round it up")
    elif number is not None and number % 1 and _device(key) and not isinstance(value.value, float):
        yield Breach(value, says=f"{key} is a whole number", remedy="write a whole number")


def _within(key: str, request: Node, limit: Node | None, *, told: bool) -> Iterator[Breach]:
    """Yield what is wrong with a request beside its limit."""
    if limit is None:
        # Of Ray's own accelerators there is a rule that says more.
        if (_device(key) or key.startswith(HUGE)) and not (told and is_accelerator(key)):
            yield Breach(request, says=f"{key} has a limit", remedy="give the same number in limits")
        return
    least, most = exactly(request.value), exactly(limit.value)
    if least is None or most is None:
        return
    if least != most and (_device(key) or key.startswith(HUGE)):
        says = f"the request of {key} is its limit (got {request.value} and {limit.value})"
        yield Breach(request, says=says, remedy="give the same number, or drop the request")
    elif least > most:
        says = f"the request of {key}, {request.value}, is above its limit, {limit.value}"
        yield Breach(request, says=says, remedy="lower the request, or raise the limit")


def _device(key: str) -> bool:
    """Return whether a resource is a device plugin's."""
    return "/" in key and "kubernetes.io/" not in key
