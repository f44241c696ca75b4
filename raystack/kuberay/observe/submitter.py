"""Separation of a submitter's own messages from the driver's log.

In: lines of the log. Out: the driver's lines, and one line if the submitter lost the cluster.

A submitter prints the driver's log, and ends with a traceback of Ray's command line when the head goes away,
which is no error of the run.
"""

import re
from collections.abc import Iterator

TRACEBACK = "Traceback (most recent call last):"
BETWEEN = (
    "",
    TRACEBACK,
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
"""Lines between the tracebacks of chained exceptions."""
COMMAND = re.compile(r'File "[^"]*/bin/ray", line ')
LOST = re.compile(r"connect|websocket|max retries|timed? ?out|disconnected", re.IGNORECASE)
"""Messages of exceptions for an unreachable cluster; any other is the submitter's own, such as a rejected
token.
"""
FIRST = re.compile(r'File "[^"]*/(?:bin/ray|urllib3/\w+\.py|aiohttp/\w+\.py)", line ')
"""First frame of a traceback that may be the submitter's. If a connection was refused, a later part shows
whose it is.
"""


def of_driver(lines: Iterator[str]) -> Iterator[str]:
    """Yield the driver's lines; only lines that may belong to the submitter are held back."""
    held: list[str] = []
    for line in lines:
        if not held and line != TRACEBACK:
            yield line
            continue
        held.append(line)
        if _is_open(held):
            continue
        if _is_submitters(held):
            yield f"(the submitter has lost the cluster: {line})" if LOST.search(line) else line
        else:
            yield from held
        held = []
    yield from held


def _is_open(held: list[str]) -> bool:
    """Return whether the following lines may still belong to a traceback of the submitter."""
    last = held[-1]
    if len(held) == 2:
        return FIRST.search(last) is not None
    if last.startswith(" ") or last in BETWEEN:
        return True
    return held[-2].startswith(" ") and not _is_submitters(
        held
    )  # an exception, and others may follow from it


def _is_submitters(held: list[str]) -> bool:
    return any(COMMAND.search(line) for line in held)
