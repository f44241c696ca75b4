"""The log format, set up once by a main and never at import. Workers prefix their rank."""

import logging
import sys


def setup(*, verbose: bool = False, rank: int | None = None) -> None:
    """Send raystack's log records to stderr: warnings and worse, or everything with `verbose`."""
    prefix = "" if rank is None else f"[rank {rank}] "
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s {prefix}%(levelname)s %(name)s: %(message)s", "%H:%M:%S")
    )
    logger = logging.getLogger("raystack")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    logger.propagate = False
