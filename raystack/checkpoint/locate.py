"""Find the checkpoints that a path or URL refers to."""

import re

from raystack.checkpoint.store import CheckpointStore
from raystack.errors import LaunchError, Problem
from raystack.storage import Storage

CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints, below a run's folder."""


def locate(url: str) -> tuple[CheckpointStore, list[int]]:
    """Return the store at `url` and the steps it refers to.

    `url` is a run's folder, its checkpoints folder, or one checkpoint. Raises LaunchError if it has none.
    """
    url = url.rstrip("/")
    above, _, name = url.rpartition("/")
    if match := re.fullmatch(r"step-(\d+)", name):
        store, step = CheckpointStore(above or "."), int(match[1])
        steps = [step] if step in store.steps() else []
    else:
        store = CheckpointStore(f"{url}/{CHECKPOINTS}" if CHECKPOINTS in Storage(url).names() else url)
        steps = store.steps()
    if not steps:
        raise LaunchError(
            Problem(
                url,
                rule="there is no checkpoint here",
                remedy="give a run's folder, its checkpoints folder, or one checkpoint",
            )
        )
    return store, steps
