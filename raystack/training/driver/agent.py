"""The process that starts the workers of a run in processes: `python -m raystack.training.driver.agent`.

It takes a Work from the driver through a pipe, and then one request for each attempt. It imports what a
training needs once, so the workers, its forks, import nothing, and those of a second attempt start at once.
"""

import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from raystack.training.driver.lifetime import end_with, outlast_signals
from raystack.training.driver.processes import Work


def main(descriptor: int, parent: int) -> None:
    """Serve the driver, the process `parent`, at its end of the pipe until that is closed."""
    outlast_signals()
    end_with(parent)
    driver: Connection[Any, Any] = Connection(descriptor)
    with suppress(EOFError, BrokenPipeError):
        serve(driver.recv(), driver)


def serve(work: Work, driver: "Connection[Any, Any]") -> None:
    """Start the workers each time that the driver asks for it; raise EOFError when it has gone."""
    from raystack.training.driver.forks import Forks  # takes seconds, in which the driver prepares the run

    forks = Forks(work, driver)
    while True:
        driver.recv()
        driver.send(forks.attempt())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
