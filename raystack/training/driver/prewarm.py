"""A warm process beside every worker, so that a restart waits for no interpreter and no import.

Ray hands a process that was started ahead, with the right environment, to the next actor. A worker that has
trained for a while has its node start one, and a hook in that environment has every such process import what
training imports. That is most of the time from the loss of a worker to the next step
(benchmarks/recovery.py).
"""

import importlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from raystack.ray_internals import core, train

AFTER_S = 20.0
"""A short run, and the first steps of a long one, are left alone: the imports take seconds of a core."""
KEEP_S = 30 * 24 * 3600
TIMEOUT_S = 10.0

IMPORTS = "RAYSTACK_IMPORTS"
"""Modules, separated by commas, that a process of this environment imports when it starts."""
ALWAYS = (
    *train.IMPORTED_BY_WORKERS,
    "raystack.training.driver.run",
)
TO_GO_ON = "raystack.checkpoint.sharded"
"""Reads a checkpoint. It takes a second to import, for which a run's first step need not wait."""
BEGAN = "RAYSTACK_BEGAN"
"""When the run began, in seconds since 1970."""


def environment(*modules: str) -> Mapping[str, str]:
    """What a worker's processes start with, so that they import `modules` beside what every training
    needs.
    """
    hook = f"{__name__}.{preload.__name__}"
    began = f"{time.time():.0f}"
    return {
        core.SETUP_HOOK: hook,
        IMPORTS: ",".join((*ALWAYS, *modules)),
        BEGAN: began,
    }


def preload() -> None:
    """Run by Ray in each new process of the environment, before it takes work."""
    names = os.environ[IMPORTS].split(",")
    if time.time() - float(os.environ[BEGAN]) > AFTER_S:
        names.append(TO_GO_ON)
    for name in names:
        # Whoever needs what is missing raises the error.
        with suppress(ImportError):
            importlib.import_module(name)


@contextmanager
def warmed() -> Iterator[None]:
    """Have a process ready on this worker's node for the next one, once the block has lasted a while."""
    timer = threading.Timer(AFTER_S, lambda: core.prestart_worker(keep_s=KEEP_S, timeout_s=TIMEOUT_S))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
