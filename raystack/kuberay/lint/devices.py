"""Accelerators: what KubeRay tells Ray of a container's limits, and what a group says itself.

KubeRay goes through the limits by name. It counts the first GPU and the first of Neuron cores and TPUs, and
nothing if `resources` in rayStartParams is no JSON once the quotes around it are taken off.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cached_property

from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.subject import GroupSubject
from raystack.plan.kuberay.facts import GPU, TOLD, amount, counted_as_gpu, is_accelerator, ray_name

_NETWORK = re.compile(
    r"(^|[/._-])(rdma|roce|infiniband|ib|hca|nics?|mlnx\w*|sriov|hostdev|efa|vf)([/._-]|\d|$)"
)
"""Devices of the network, which may be named after the GPU that they serve."""
_SHARE = re.compile(r"(mem|memory|memory\.max|cores?|percentage|millicores|tiles|monitoring|priority)$")
"""What device plugins call a share of an accelerator: how much of one, and not how many."""
_CERTAIN = re.compile(r"nvidia\.com/(gpu|mig-)|amd\.com/gpu|gpu\.intel\.com/")


def is_device(key: str) -> bool:
    """Return whether a resource is an accelerator, or a share of one."""
    return is_accelerator(key) and _NETWORK.search(key) is None


def is_share(key: str) -> bool:
    """Return whether a resource says how much of an accelerator, as HAMi's `nvidia.com/gpumem` does."""
    name = key.rpartition("/")[2]
    return _SHARE.search(name) is not None and not name.startswith("neuron")


def is_certain(key: str) -> bool:
    """Return whether a resource is a GPU by its vendor's name, and not only by a part of it."""
    return _CERTAIN.match(key) is not None


def quoted(name: str) -> str:
    """Return how to write a resource in rayStartParams, so that a shell and KubeRay can read it."""
    return f"""set rayStartParams.resources: "'{{\\"{name}\\": 1}}'\""""


def after_shell(text: str) -> Mapping[str, object] | None:
    """Return the JSON mapping that a shell leaves of the text, or None."""
    try:
        words = shlex.split(text)
        value = json.loads(words[0]) if len(words) == 1 else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


class Devices:
    """Accelerators of a group's Ray container."""

    def __init__(self, group: GroupSubject) -> None:
        self._group = group

    @cached_property
    def limits(self) -> dict[str, Node]:
        """Limits that are accelerators and above zero, by name."""
        found = self._group.ray.at("resources", "limits").fields
        return {key: found[key] for key in sorted(found) if is_device(key) and amount(found[key].value) > 0}

    @cached_property
    def counted(self) -> tuple[str, ...]:
        """Limits that KubeRay tells Ray of: one GPU, and one other."""
        if not self.readable:
            return ()
        first: dict[bool, str] = {}
        for key in self.limits:
            if counted_as_gpu(key) or key in TOLD:
                first.setdefault(counted_as_gpu(key), key)
        return tuple(first.values())

    @cached_property
    def uncounted(self) -> dict[str, Node]:
        """Limits that KubeRay does not count, and of which the group does not tell Ray."""
        wholes = {ray_name(key) for key in self.limits if not is_share(key)}
        counted = {ray_name(key) for key in self.counted}
        return {
            key: limit
            for key, limit in self.limits.items()
            if key not in self.counted
            and not self.told(ray_name(key))
            and not (is_share(key) and ray_name(key) in wholes)
            and not (ray_name(key) in counted and not is_certain(key))
        }

    @property
    def mistaken(self) -> Node | None:
        """Device of the network whose number KubeRay tells Ray as that of GPUs, if there is one."""
        limits = self._group.ray.at("resources", "limits").fields
        counted = (key for key in sorted(limits) if counted_as_gpu(key) and amount(limits[key].value) > 0)
        first = next(counted, None)
        nic = first is not None and _NETWORK.search(first) is not None and not self.told(GPU)
        return limits[first] if first is not None and nic else None

    @property
    def readable(self) -> bool:
        """True if KubeRay can read `resources` in rayStartParams, where there are some."""
        text = self._group.params["resources"].text
        if not text or self._group.resources:
            return True
        try:
            value = json.loads(text.strip("'\"` "))
        except ValueError:
            return False
        return isinstance(value, dict) and all(isinstance(each, (int, float)) for each in value.values())

    @property
    def numbers(self) -> dict[str, float]:
        """Number of accelerators by Ray's name, where a limit says it."""
        found: dict[str, float] = {}
        for key, limit in self.limits.items():
            name = ray_name(key)
            # A device of Neuron has several cores, and other names of GPUs may be shares of one.
            if name in ("TPU", "HPU", "NPU") or counted_as_gpu(key) or key in TOLD:
                found[name] = found.get(name, 0) + amount(limit.value)
        return found

    def said(self, name: str) -> Iterator[tuple[Node, float]]:
        """Yield the numbers that the group itself tells Ray of an accelerator."""
        params, own = self._group.params, self._group.resources
        if name == GPU:
            given = [params["num-gpus"], *(own[key] for key in own if counted_as_gpu(key.lower()))]
        else:
            given = [own[name]] if name in own else []
            number = (after_shell(params["resources"].text) or {}).get(name)
            if isinstance(number, int | float):
                yield params["resources"], number
        yield from ((node, int(node.text)) for node in given if node.text.isdecimal())

    def told(self, name: str) -> bool:
        """Return whether the group itself tells Ray of an accelerator, by Ray's name."""
        own = self._group.resources
        if name == GPU:
            return bool(self._group.params["num-gpus"].text) or any(
                counted_as_gpu(key.lower()) for key in own
            )
        return name in own or name in (after_shell(self._group.params["resources"].text) or {})
