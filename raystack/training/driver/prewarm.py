"""Prewarmed processes: a restarted worker waits for no interpreter and no import.

Ray gives the next actor a process that was started ahead, if its environment is the same. A worker that has
trained for a while has its node start one, and a hook in the environment makes it import what training needs.
That saves most of the time from the loss of a worker to the next step (benchmarks/recovery.py,
docs/decisions/0007-recovery.md).
"""

import importlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from raystack.ray_internals import core, start, train

# The imports take seconds of a core: too much for a short run, and for the first steps of a long one.
AFTER_S = 20.0
"""Seconds of training before a process is prewarmed."""
KEEP_S = 30 * 24 * 3600
"""Seconds that Ray keeps a prewarmed process: thirty days."""
TIMEOUT_S = 10.0
"""Seconds that the request to the node may take."""

IMPORTS = "RAYSTACK_IMPORTS"
"""Variable with the modules, separated by commas, that a process imports when it starts."""
ALWAYS = (
    *train.IMPORTED_BY_WORKERS,
    "raystack.training.driver.run",
)
TO_GO_ON = "raystack.checkpoint.sharded"
"""The module that reads checkpoints; its import takes a second, and a new run does not need it."""
BEGAN = "RAYSTACK_BEGAN"
"""Variable with the time when the run began, in seconds since 1970."""


def environment(*modules: str) -> Mapping[str, str]:
    """Return the variables that make a worker's processes import `modules` and what every training needs."""
    hook = f"{__name__}.{preload.__name__}"
    # Written once, at the start of the run: Ray reuses a process only for the very same environment.
    began = f"{time.time():.0f}"
    return {
        core.SETUP_HOOK: hook,
        IMPORTS: ",".join((*ALWAYS, *modules)),
        BEGAN: began,
    }


def preload() -> None:
    """Import the environment's modules; Ray calls this in each new process before it takes work."""
    start.outlast_sigterm()
    names = os.environ[IMPORTS].split(",")
    if time.time() - float(os.environ[BEGAN]) > AFTER_S:
        names.append(TO_GO_ON)
    for name in names:
        # A module that is missing raises again, with a better message, where it is needed.
        with suppress(ImportError):
            importlib.import_module(name)


@contextmanager
def warmed() -> Iterator[None]:
    """Prewarm a process on this worker's node once the block has lasted AFTER_S."""
    timer = threading.Timer(AFTER_S, lambda: core.prestart_worker(keep_s=KEEP_S, timeout_s=TIMEOUT_S))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
