"""The door to fsspec: one folder at a local path or any URL, in; its files, in and out.

Listings are never stale. An object store that is away is asked again, one that refuses is told at once, and
which of the two an error means is decided here and nowhere else.
"""

import copy
import errno
import hashlib
import logging
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import fsspec

from raystack.errors import ConfigError, Problem, TrainingError

logger = logging.getLogger(__name__)

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
PATIENCE_S = 60.0
"""How long a store that is away is asked again where nobody can stop the waiting."""
BLOCK = 16 * 2**20
"""Bytes that are read from a remote file at a time."""

Result = TypeVar("Result")

_CONNECTION = ("Connection", "Timeout", "Disconnected", "HTTPClientError", "IncompleteRead", "ClientPayload")
_FULL = {errno.ENOSPC, errno.EDQUOT}
_WRONG = {errno.EINVAL, errno.EPERM, errno.EROFS}


class Storage:
    """Files below `url`, by path relative to it. Raises ConfigError where the store refuses, TrainingError
    where it stays away.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            extra = (
                "'raystack-ml[s3]'"
                if url.startswith(("s3://", "s3a://"))
                else "the package that fsspec names"
            )
            raise ConfigError(
                Problem("experiment.storage", rule=str(error), got=url, remedy=f"pip install {extra}")
            ) from None
        except ValueError as error:
            raise ConfigError(Problem("experiment.storage", rule=str(error), got=url)) from None
        self.root = str(root).rstrip("/")
        protocol = self._fs.protocol
        self.local = "file" in ((protocol,) if isinstance(protocol, str) else protocol)
        """On a disk: no error of it passes by waiting, and a rename puts a whole folder in place."""
        self._stop: threading.Event | None = None

    def until(self, stop: threading.Event) -> "Storage":
        """The same storage, which is waited for while it is away until `stop` is set, and not only for a
        while.
        """
        patient = copy.copy(self)
        patient._stop = stop
        return patient

    def path(self, name: str = "") -> str:
        """The file system's own path of `name`; a real path where the storage is local."""
        return f"{self.root}/{name}" if name else self.root

    def names(self, folder: str = "") -> list[str]:
        """Names in `folder`, sorted; none where it does not exist."""
        try:
            found = self._ask(lambda: self._fs.ls(self.path(folder), detail=False))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(os.path.basename(path.rstrip("/")) for path in found)

    def files(self, folder: str) -> dict[str, int]:
        """Size in bytes of every file below `folder`, by path relative to it; empty where it does not
        exist.
        """
        start = len(self.path(folder)) + 1
        try:
            found = self._ask(lambda: self._fs.find(self.path(folder), detail=True))
        except FileNotFoundError:
            return {}
        return {path[start:]: int(info["size"]) for path, info in found.items()}

    def read(self, name: str) -> str:
        """Text of a file. Raises FileNotFoundError, and UnicodeDecodeError (a ValueError) where it is no
        text.
        """
        return self.read_bytes(name).decode("utf-8")

    def read_bytes(self, name: str) -> bytes:
        """Content of a file. Raises FileNotFoundError."""
        return bytes(self._ask(lambda: self._fs.cat_file(self.path(name))))

    def mark(self, name: str) -> str:
        """What changes when the file does, without reading it: its ETag, or its size and time. Raises
        FileNotFoundError.
        """
        return str(self._ask(lambda: self._fs.checksum(self.path(name))))

    def digest(self, name: str) -> tuple[str, int]:
        """SHA-256 in hexadecimal and size in bytes of a file, read as a stream. Raises FileNotFoundError."""
        return self._ask(lambda: self._digest(self.path(name)))

    def write(self, name: str, text: str) -> None:
        """Write a file so that a reader finds the old text or the new, and never a part."""
        path, content = self.path(name), text.encode("utf-8")
        put = partial(_replace, path, content) if self.local else partial(self._fs.pipe_file, path, content)
        self._ask(put, writing=True)

    def make(self, folder: str) -> Path:
        """A folder in a local storage, made if it is not there."""
        path = Path(self.path(folder))
        try:
            self._ask(lambda: path.mkdir(parents=True, exist_ok=True))
        except (
            FileNotFoundError,
            NotADirectoryError,
            FileExistsError,
        ) as error:  # below /proc, below a file, a file
            raise self._refuses(error) from error
        return path

    def put(self, source: Path, name: str) -> None:
        """Copy a local file here."""
        if self.local:
            os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        self._ask(lambda: self._fs.put_file(str(source), self.path(name)), writing=True)

    def get(self, folder: str, target: Path) -> None:
        """Copy the files below `folder` into the local folder `target`, which is made."""
        self._ask(lambda: self._fs.get(f"{self.path(folder)}/", str(target), recursive=True))

    def delete(self, name: str) -> None:
        """Delete a file or a folder; one that is not there is no error."""
        try:
            self._ask(lambda: self._fs.rm(self.path(name), recursive=True))
        except FileNotFoundError:
            return

    def _digest(self, path: str) -> tuple[str, int]:
        digest, size = hashlib.sha256(), 0
        with self._fs.open(path, "rb", block_size=BLOCK) as file:
            while block := file.read(BLOCK):
                digest.update(block)
                size += len(block)
        return digest.hexdigest(), size

    def _ask(self, action: Callable[[], Result], *, writing: bool = False) -> Result:
        """The result of `action`, tried again while the store is away."""
        stop = self._stop
        deadline = math.inf if stop is not None else time.monotonic() + PATIENCE_S
        error: Exception | None = None
        for wait in _waits():
            if stop is not None and stop.is_set():
                raise TrainingError(
                    Problem(
                        self.url,
                        rule="the upload was stopped before it was done",
                        got=_text(error) if error else None,
                    )
                )
            try:
                self._fs.invalidate_cache()
                return action()
            except Exception as raised:  # each library behind fsspec has its own classes
                if _refused(raised, writing and not self.local):
                    raise self._refuses(raised) from raised
                if self.local or not _may_pass(raised):
                    raise
                if time.monotonic() + wait > deadline:
                    raise TrainingError(
                        Problem(self.url, rule="the storage does not answer", got=_text(raised))
                    ) from raised
                if error is None:
                    logger.warning("%s is away and is asked again: %s", self.url, _text(raised))
                error = raised
            (stop or threading.Event()).wait(wait)
        raise AssertionError("the waits never end")

    def _refuses(self, error: Exception) -> ConfigError:
        remedy = "set it, or RAYSTACK_STORAGE, to a folder that may be written" if self.local else None
        return ConfigError(
            Problem("experiment.storage", rule=f"{self.url} refuses: {_text(error)}", remedy=remedy)
        )


def _replace(path: str, content: bytes) -> None:
    beside = f"{path}.{secrets.token_hex(4)}"  # processes of two machines may have one number
    with open(beside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _waits() -> Iterator[float]:
    """Seconds between two tries."""
    wait = FIRST_WAIT_S
    while True:
        yield wait
        wait = min(2 * wait, LONGEST_WAIT_S)


def _refused(error: Exception, writing: bool) -> bool:
    """Whether asking again would bring the same answer: no permission, no credentials, no such bucket."""
    if isinstance(error, FileNotFoundError):
        # Nothing has to be there before a write but the bucket.
        response = getattr(error.__cause__, "response", None) or {}
        return writing or response.get("Error", {}).get("Code") == "NoSuchBucket"
    if isinstance(error, OSError):
        return isinstance(error, PermissionError) or error.errno in _WRONG
    return any("Credentials" in kind.__name__ for kind in type(error).__mro__)


def _may_pass(error: Exception) -> bool:
    """Whether the store may answer later. Libraries raise connection errors that are no OSError: those are
    known by name.
    """
    if isinstance(error, OSError):
        lasting = isinstance(
            error, (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
        )
        return not lasting and error.errno not in _FULL
    return any(word in kind.__name__ for kind in type(error).__mro__ for word in _CONNECTION)


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
