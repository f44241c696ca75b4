"""What a submitter says of itself in the driver's log. In: its lines. Out: the driver's, and one line where
the submitter lost the cluster.

A submitter prints the driver's log, and ends with a traceback of Ray's command line when the head goes away:
that is no error of the run.
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
"""Lines from one traceback to the next that belongs to it."""
COMMAND = re.compile(r'File "[^"]*/bin/ray", line ')
LOST = re.compile(r"connect|websocket|max retries|timed? ?out|disconnected", re.IGNORECASE)
"""What an exception says where the cluster cannot be reached; any other is the submitter's own, such as a
token that is refused.
"""
FIRST = re.compile(r'File "[^"]*/(?:bin/ray|urllib3/\w+\.py|aiohttp/\w+\.py)", line ')
"""The first frame of a traceback that may be the submitter's. Where a connection was refused, a later part
says whose it is.
"""


def of_driver(lines: Iterator[str]) -> Iterator[str]:
    """The lines as they come. Only what may turn out to be the submitter's is held back until it is known."""
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
    """Whether what follows may still belong to the traceback of a submitter."""
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
