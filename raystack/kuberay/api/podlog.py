"""Logs of containers.

In: a pod and a container. Out: lines without line ends, as they are or as they arrive.
"""

import re
import time
from collections.abc import Callable, Iterator

from raystack.kuberay.api.kinds import RESOURCES, Object
from raystack.kuberay.api.refusal import refusal
from raystack.kuberay.api.transport import Query, Transport, lines

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)) ?(.*)", re.DOTALL)


def read(
    transport: Transport, namespace: str, pod: str, container: str | None, *, previous: bool = False
) -> Iterator[str]:
    """Yield the current lines; with `previous` those before the container's restart."""
    yield from _lines(transport, namespace, pod, container, [("previous", "true")] if previous else [])


def follow(
    transport: Transport,
    namespace: str,
    pod: str,
    container: str | None,
    look: Callable[[], Object | None],
) -> Iterator[str]:
    """Yield lines until the container ends, across dropped connections; `look` reads the pod."""
    last = ""
    while True:
        query = [("follow", "true"), ("timestamps", "true")]
        query += [("sinceTime", _second(last))] if last else []
        for line in _lines(transport, namespace, pod, container, query, stream=True):
            stamp, text = _stamped(line)
            # `sinceTime` has a resolution of seconds, so lines already seen are sent again.
            if stamp and stamp <= last:
                continue
            last = stamp or last
            yield text
        if not _runs(look(), container):
            return
        time.sleep(0.5)


def _lines(
    transport: Transport,
    namespace: str,
    pod: str,
    container: str | None,
    query: Query,
    *,
    stream: bool = False,
) -> Iterator[str]:
    named: Query = [("container", container)] if container else []
    path = RESOURCES["Pod"].path(namespace, f"{pod}/log")
    answer = transport.ask("GET", path, [*named, *query], stream=stream)
    if answer.status >= 300:
        raise refusal(answer, f"pod/{pod}")
    yield from lines(answer, cut_is_end=stream)


def _runs(pod: Object | None, container: str | None) -> bool:
    """Return whether the container may still write to its log."""
    status = (pod or {}).get("status", {})
    if status.get("phase") != "Running":
        return False
    states = [each for each in status.get("containerStatuses", []) if container in (None, each["name"])]
    return not states or any("running" in each.get("state", {}) for each in states)


def _stamped(line: str) -> tuple[str, str]:
    """Split a line of a log into its timestamp and the rest."""
    found = _STAMP.fullmatch(line)
    return (found.group(1), found.group(2)) if found else ("", line)


def _second(stamp: str) -> str:
    """Return a time without fractions of a second, as `sinceTime` takes it."""
    return re.sub(r"\.\d+", "", stamp)
