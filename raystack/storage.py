"""Access to a folder on any file system, through fsspec. In: a local path or URL. Out: the files below it.

Only this module imports fsspec. It retries requests while an object store is unavailable, reports a rejected
request at once, and decides which of the two an error means. Listings are never stale.
"""

import copy
import errno
import hashlib
import logging
import math
import os
import secrets
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from raystack.errors import ConfigError, Problem, TrainingError
from raystack.refusals import FULL, refusals

logger = logging.getLogger(__name__)

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
PATIENCE_S = 60.0
"""How long requests to an unavailable store are retried, without an event that stops them."""
BLOCK = 16 * 2**20
"""Bytes that are read from a remote file at a time."""
TRIES = 10
"""Times that a folder is deleted in which another process makes files meanwhile."""

TEMPORARY = "."
"""First character of the name of a file that is being written."""

Result = TypeVar("Result")

# Parts of the class names of transient errors in botocore, aiohttp and urllib3, many of which are no OSError.
# Names, because none of these libraries has to be installed.
_CONNECTION = ("Connection", "Timeout", "Disconnected", "HTTPClientError", "IncompleteRead", "ClientPayload")
_WRONG = {errno.EINVAL, errno.EPERM, errno.EROFS}
_MARKS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
"""What file systems tell of a file's version, under the names of s3fs, gcsfs, adlfs and fsspec's own."""


@dataclass(frozen=True)
class FileInfo:
    """A file as it is now."""

    bytes: int
    mark: str
    """Its ETag, or the time of its last change. Empty: its store has neither."""


class Storage:
    """The files below `url`, by path relative to it.

    All methods raise ConfigError if the store rejects a request, TrainingError if it stays unavailable.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        import fsspec  # takes some 30 ms, and --dry-run asks for no file

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
        """Whether it is a local file system: errors are final, and a rename can publish a whole folder."""
        self._stop: threading.Event | None = None

    def until(self, stop: threading.Event) -> "Storage":
        """Return this storage with retries that go on until `stop` is set, not only for a minute."""
        patient = copy.copy(self)
        patient._stop = stop
        return patient

    def path(self, name: str = "") -> str:
        """Return the file system's own path of `name`; on local storage a path of the machine."""
        return f"{self.root}/{name}" if name else self.root

    def names(self, folder: str = "") -> list[str]:
        """Return the names in `folder`, sorted; none if it does not exist.

        Leaves out what is being written, or was when its process was killed.
        """
        return [name for name in self._names(folder) if not name.startswith(TEMPORARY)]

    def unfinished(self) -> list[str]:
        """Return the names at the root that are being written, or were when their process was killed."""
        return [name for name in self._names("") if name.startswith(TEMPORARY)]

    def files(self, folder: str) -> dict[str, int]:
        """Return the size in bytes of each file below `folder`, by relative path; {} if it does not exist."""
        start = len(self.path(folder)) + 1
        try:
            details = self._retry(lambda: self._fs.find(self.path(folder), detail=True))
        except FileNotFoundError:
            return {}
        return {path[start:]: int(info["size"]) for path, info in details.items()}

    def read(self, name: str) -> str:
        """Return the text of a file. Raises FileNotFoundError, and UnicodeDecodeError if it is not UTF-8."""
        return self.read_bytes(name).decode("utf-8")

    def read_bytes(self, name: str) -> bytes:
        """Return the content of a file. Raises FileNotFoundError."""
        return bytes(self._retry(lambda: self._fs.cat_file(self.path(name))))

    def check_file(self, name: str) -> None:
        """Raise OSError on local storage if `name` is no regular file: a folder, or what blocks its reader.

        Raises FileNotFoundError if there is nothing.
        """
        if self.local and not stat.S_ISREG(os.stat(self.path(name)).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", self.path(name))

    def mark(self, name: str) -> str:
        """Return a value that changes when the file does: its ETag, or a hash of its size and time.

        Does not read the file. Raises FileNotFoundError.
        """
        return str(self._retry(lambda: self._fs.checksum(self.path(name))))

    def digest(self, name: str) -> tuple[str, int]:
        """Return SHA-256 in hexadecimal and size in bytes of a file. Raises FileNotFoundError."""
        return self._retry(lambda: self._digest(self.path(name)))

    def found(self) -> dict[str, FileInfo]:
        """Return the files that the URL names, by URL: a file, those below a folder, or those of a pattern.

        Empty if there are none.
        """
        return {self._url(path): _file_info(info) for path, info in sorted(self._retry(self._find).items())}

    def open(self, name: str = "") -> BinaryIO:
        """Open a file to read; what a suffix such as .gz says is unpacked. Raises FileNotFoundError."""
        file: BinaryIO = self._retry(lambda: self._fs.open(self.path(name), "rb", compression="infer"))
        return file

    @contextmanager
    def published(self, name: str) -> Iterator[Path]:
        """Yield the path of a new file, which is `name`, whole, once the block has ended without an error."""
        if not self.local:
            with tempfile.TemporaryDirectory() as folder:
                yield Path(folder, "file")
                self.put(Path(folder, "file"), name)
            return
        temporary = Path(_temporary(self.path(name)))
        try:
            yield temporary
            self._retry(partial(_publish, temporary, self.path(name)), writing=True)
        finally:
            temporary.unlink(missing_ok=True)

    def write(self, name: str, text: str) -> None:
        """Write a file atomically: a reader finds the old text or the new one."""
        path, content = self.path(name), text.encode("utf-8")
        put = partial(_replace, path, content) if self.local else partial(self._fs.pipe_file, path, content)
        self._retry(put, writing=True)

    def make(self, folder: str) -> Path:
        """Create a folder in local storage if needed, and return its path."""
        path = Path(self.path(folder))
        try:
            self._retry(lambda: path.mkdir(parents=True, exist_ok=True))
        # In this order: the path is below /proc, it is below a file, it is a file.
        except (FileNotFoundError, NotADirectoryError, FileExistsError) as error:
            raise self._rejection(error) from error
        return path

    def put(self, source: Path, name: str) -> None:
        """Copy the local file `source` to `name`."""

        def copy() -> None:
            if self.local:
                os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
            self._fs.put_file(str(source), self.path(name))

        self._retry(copy, writing=True)

    def get(self, folder: str, target: Path) -> None:
        """Copy the files below `folder` into the local folder `target`; create it if needed."""
        # With the slash at its end fsspec copies what is in the folder, without it the folder itself.
        self._retry(lambda: self._fs.get(f"{self.path(folder)}/", str(target), recursive=True))

    def copy(self, source: "Storage", name: str) -> None:
        """Copy all files of `source`, on the same file system, below `name`; a manifest last."""
        files = sorted(source.files(""), key=lambda file: (file == "manifest.json", file))
        for file in files:
            target = self.path(f"{name}/{file}")
            self._retry(partial(self._copy, source.path(file), target), writing=True)

    def _names(self, folder: str) -> list[str]:
        try:
            paths = self._retry(lambda: self._fs.ls(self.path(folder), detail=False))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(os.path.basename(path.rstrip("/")) for path in paths)

    def _find(self) -> dict[str, dict[str, Any]]:
        try:
            info = self._fs.info(self.root)
        except FileNotFoundError:
            # A pattern may be the name of a file, such as one with brackets.
            found = self._fs.glob(self.root, detail=True) if set(self.root) & set("*?[") else {}
            return {path: info for path, info in found.items() if info["type"] == "file"}
        if info["type"] != "directory":
            return {self.root: info}
        below: dict[str, dict[str, Any]] = self._fs.find(self.root, detail=True)
        return below

    def _url(self, path: str) -> str:
        return path if self.local else str(self._fs.unstrip_protocol(path))

    def _copy(self, path: str, target: str) -> None:
        if self.local:
            os.makedirs(os.path.dirname(target), exist_ok=True)
        self._fs.copy(path, target)

    def delete(self, name: str) -> None:
        """Delete a file or a folder, if it exists."""
        try:
            self._retry(lambda: self._delete(self.path(name)))
        except (FileNotFoundError, NotADirectoryError):
            return

    def _delete(self, path: str) -> None:
        if self.local and os.path.islink(path):
            os.unlink(path)  # what it leads to is not raystack's
            return
        for left in reversed(range(TRIES)):
            try:
                self._fs.rm(path, recursive=True)
                return
            except OSError as error:  # a process that is about to end may still write there
                if error.errno != errno.ENOTEMPTY or not left:
                    raise

    def _digest(self, path: str) -> tuple[str, int]:
        digest, size = hashlib.sha256(), 0
        with self._fs.open(path, "rb", block_size=BLOCK) as file:
            while block := file.read(BLOCK):
                digest.update(block)
                size += len(block)
        return digest.hexdigest(), size

    def _retry(self, action: Callable[[], Result], *, writing: bool = False) -> Result:
        """Return the result of `action`, with retries while the store is unavailable."""
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
                self._fs.invalidate_cache()  # fsspec caches listings, and other machines write here too
                return action()
            except Exception as raised:  # each library behind fsspec has its own classes
                if _is_rejected(raised, writing and not self.local):
                    raise self._rejection(raised) from raised
                if writing and isinstance(raised, OSError) and (self.local or raised.errno in FULL):
                    with refusals("a file", self.path() if self.local else self.url):
                        raise
                if self.local or not _is_transient(raised):
                    raise
                if time.monotonic() + wait > deadline:
                    raise TrainingError(
                        Problem(self.url, rule="the storage does not answer", got=_text(raised))
                    ) from raised
                if error is None:
                    logger.warning("%s is unavailable; retrying: %s", self.url, _text(raised))
                error = raised
            (stop or threading.Event()).wait(wait)
        raise AssertionError("the waits never end")

    def _rejection(self, error: Exception) -> ConfigError:
        remedy = "set it, or RAYSTACK_STORAGE, to a folder that may be written" if self.local else None
        return ConfigError(
            Problem("experiment.storage", rule=f"{self.url} refuses: {_text(error)}", remedy=remedy)
        )


def _file_info(info: Mapping[str, Any]) -> FileInfo:
    mark = next((str(info[key]) for key in _MARKS if info.get(key) is not None), "")
    return FileInfo(int(info["size"] or 0), mark)


def _publish(temporary: Path, path: str) -> None:
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _temporary(path: str) -> str:
    """Return a path beside `path` for a file that is to become it."""
    folder, name = os.path.split(path)
    # Random, and not the pid, which processes of two machines may share. Programs leave out names with a dot.
    return os.path.join(folder, f"{TEMPORARY}{name}.{secrets.token_hex(4)}")


def _replace(path: str, content: bytes) -> None:
    temporary = _temporary(path)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # before the rename, so that a crash does not leave an empty file
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _waits() -> Iterator[float]:
    """Yield the seconds before each retry, without an end."""
    wait = FIRST_WAIT_S
    while True:
        yield wait
        wait = min(2 * wait, LONGEST_WAIT_S)


def _is_rejected(error: Exception, writing: bool) -> bool:
    """Return whether the store rejected a request: no permission, no credentials, no such bucket."""
    if isinstance(error, FileNotFoundError):
        # A write to an object store needs no folder, so only the bucket can be missing.
        response = getattr(error.__cause__, "response", None) or {}
        return writing or response.get("Error", {}).get("Code") == "NoSuchBucket"
    if isinstance(error, OSError):
        return isinstance(error, PermissionError) or error.errno in _WRONG
    return any("Credentials" in kind.__name__ for kind in type(error).__mro__)


def _is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed later."""
    if isinstance(error, OSError):
        permanent = isinstance(
            error, (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
        )
        return not permanent and error.errno not in FULL
    return any(word in kind.__name__ for kind in type(error).__mro__ for word in _CONNECTION)


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
