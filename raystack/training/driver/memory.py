"""Memory that a step on the CPU frees and takes again: the environment variables that keep it."""

import os
from collections.abc import Mapping

from raystack.plan import TrainPlan

KEEP_PAGES = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}
"""Variables that make glibc keep the memory that a process frees."""


def kept_pages(plan: TrainPlan) -> Mapping[str, str]:
    """Return the variables that a worker's process starts with; none on a GPU."""
    # Each step on the CPU allocates and frees its activations. glibc returns such large blocks to the system
    # and gets them back page by page; keeping them saves most page faults of a step. There is one arena,
    # because Ray Train does not train in the main thread, and glibc's arenas for other threads keep at most
    # 64 MiB each (docs/decisions/0005-steps-on-the-cpu.md).
    if plan.workers.device != "cpu":
        return {}
    # The user's own settings of malloc win.
    return {name: os.environ.get(name, value) for name, value in KEEP_PAGES.items()}
