"""What a person points at -> the store and the steps that are meant."""

import re

from raystack.checkpoint.store import CheckpointStore
from raystack.errors import LaunchError, Problem
from raystack.storage import Storage

CHECKPOINTS = "checkpoints"
"""Name of the folder of the checkpoints in a run's folder."""


def locate(url: str) -> tuple[CheckpointStore, list[int]]:
    """`url` is a run's folder, its checkpoints folder, or one checkpoint. Raises LaunchError where there is
    none.
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
