"""Writes that the system refuses: a full disk, a quota, too many open files. Out: one line that says so."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raystack.display.units import size
from raystack.errors import Problem, RaystackError, TrainingError

FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = FULL | {
    errno.EFBIG,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENODEV,
    errno.ENXIO,
    errno.ESTALE,
}
"""What a system says to a write that is no fault of the code that writes."""


@contextmanager
def refusals(what: str, folder: str, key: str = "experiment.storage", needed: int = 0) -> Iterator[None]:
    """Have the system's refusal of a write name the folder and the reason: no space, a quota, an I/O error.

    A library may hide it behind an error of its own. `what` is written, in bytes `needed`; `key` says which
    setting chose the folder. Raises TrainingError; other errors pass.
    """
    try:
        yield
    except RaystackError:
        raise
    except Exception as error:  # a library's class depends on the library
        number = _refusal(error, folder)
        if number is None:
            raise
        got, remedy = None, None
        if number in FULL and "://" not in folder:
            got = f"{size(_free(folder))} free{f', {size(needed)} needed' if needed else ''}"
        if number in FULL:
            remedy = "make room there, or set it to another folder"
        rule = f"{what} cannot be written to {folder}: {os.strerror(number)}"
        raise TrainingError(Problem(key, rule=rule, got=got, remedy=remedy)) from error


def _refusal(error: BaseException, folder: str) -> int | None:
    """Return the number of the system's error behind `error`, if it refuses a write into `folder`."""
    # PyTorch's archive writer closes its file after the error, and raises what it finds then. Libraries in
    # Rust have only a text.
    at: BaseException | None = error
    while at is not None:
        told = re.search(r"\(os error (\d+)\)", str(at))
        number = at.errno if isinstance(at, OSError) else int(told[1]) if told else None
        names = [at.filename, at.filename2] if isinstance(at, OSError) else []
        elsewhere = any(names) and not any(str(name).startswith(folder) for name in names)
        if number in _REFUSED and not elsewhere:
            return number
        at = at.__cause__ or at.__context__
    return None


def _free(folder: str) -> int:
    path = Path(folder)
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free
