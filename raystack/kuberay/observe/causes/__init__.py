"""Causes for which something does not run.

In: a Snapshot and the time. Out: the first matching cause with its remedy, or None.

Pure functions. Permanent rejections come before holds, holds before what pods lack, and guesses last.
"""

from raystack.kuberay.observe.causes.ending import ending
from raystack.kuberay.observe.causes.held import deleted, held, invalid, suspended
from raystack.kuberay.observe.causes.missing import missing
from raystack.kuberay.observe.causes.pod import pods
from raystack.kuberay.observe.causes.progress import head_lost, progress
from raystack.kuberay.observe.causes.queue import in_line, queued
from raystack.kuberay.observe.causes.service import applications, in_words
from raystack.kuberay.observe.snapshot import Snapshot
from raystack.status import Diagnosis

__all__ = ["CAUSES", "find", "held", "in_line", "invalid"]

BEFORE = (invalid, ending, deleted, queued, suspended)
"""Causes that prevent it from running at all, or have ended it."""
CAUSES = (*BEFORE, missing, pods, head_lost, applications, progress)


def find(snapshot: Snapshot, now: float) -> Diagnosis | None:
    """Return the first matching cause."""
    for cause in CAUSES:
        found = cause(snapshot, now)
        if found is not None:
            return found if cause in BEFORE else in_words(snapshot, found)
    return in_words(snapshot, None)
