"""Lists and watches.

In: a resource and what to select. Out: plain objects, for a watch after every change.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing

from raystack.kuberay.api.kinds import ApiResource, Object
from raystack.kuberay.api.refusal import refusal
from raystack.kuberay.api.transport import Query, Transport, lines

WATCH_S = 60.0
"""Duration of one watch, before it is opened again."""
PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Shortest and longest pause between two watches."""
PAGE = 500


def selectors(labels: Mapping[str, str], fields: Mapping[str, str]) -> Query:
    """Return the query for objects with these labels and fields."""
    wanted = {"labelSelector": labels, "fieldSelector": fields}
    return [
        (name, ",".join(f"{key}={value}" for key, value in pairs.items()))
        for name, pairs in wanted.items()
        if pairs
    ]


def page(transport: Transport, resource: ApiResource, path: str, query: Query) -> tuple[str, list[Object]]:
    """Return the resource version of a list, and its items."""
    items: list[Object] = []
    more = ""
    while True:
        part = transport.json(
            "GET",
            path,
            [*query, ("limit", str(PAGE)), *([("continue", more)] if more else [])],
            of=resource.plural,
        )
        items += [{"apiVersion": resource.api, "kind": resource.kind, **item} for item in part["items"]]
        more = part["metadata"].get("continue") or ""
        if not more:
            return str(part["metadata"].get("resourceVersion", "")), items


def watch(
    transport: Transport, resource: ApiResource, namespace: str, name: str, deadline: float
) -> Iterator[Object | None]:
    """Yield the object as it was read, then each watched change, and start over when a watch ends."""
    path, only = resource.path(namespace), selectors({}, {"metadata.name": name})
    pause = PAUSE_S
    while True:
        version, found = page(transport, resource, path, only)
        yield found[0] if found else None
        opened = time.monotonic()
        yield from _follow(transport, resource, path, [*only, ("resourceVersion", version)], deadline)
        if (left := deadline - time.monotonic()) <= 0:
            return
        time.sleep(min(pause, left))
        # A server that ends every watch at once is asked more and more seldom.
        pause = min(2 * pause, LONGEST_PAUSE_S) if time.monotonic() - opened < LONGEST_PAUSE_S else PAUSE_S


def _follow(
    transport: Transport, resource: ApiResource, path: str, query: Query, deadline: float
) -> Iterator[Object | None]:
    """Yield changes until the watch ends, its connection drops, its version expires or time is up."""
    left = min(deadline - time.monotonic(), WATCH_S)
    if left <= 0:
        return
    query = [
        *query,
        ("watch", "true"),
        ("allowWatchBookmarks", "true"),
        ("timeoutSeconds", str(max(1, round(left + 0.5)))),
    ]
    answer = transport.ask("GET", path, query, stream=True, read_s=left)
    if answer.status == 410:
        return
    if answer.status >= 300:
        raise refusal(answer, resource.plural)
    with closing(lines(answer, cut_is_end=True)) as changes:
        for line in changes:
            change = json.loads(line)
            if change["type"] == "ERROR":
                return
            if change["type"] != "BOOKMARK":
                yield None if change["type"] == "DELETED" else change["object"]
            if time.monotonic() >= deadline:
                return
