"""Where CloudEvents go: files of JSON lines, or an HTTP sink; with retries until it takes them.

For one thread. Nothing here is called by a request.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import requests

from raystack.serving import cloudevents
from raystack.serving.cloudevents import Event

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Seconds between two attempts to reach a sink: they double up to the longest."""
ANSWER_S = 5.0
"""Seconds that a sink may take to answer."""
BATCH_BYTES, BATCH_EVENTS = 1_000_000, 100
"""Largest request to a sink; a larger event is one alone."""
TELL_S = 60.0
"""Seconds between two messages about events that were dropped."""

Mode = Literal["batch", "structured", "binary"]

_LATER = (408, 425, 429)
"""Statuses below 500 that ask for another attempt."""

logger = logging.getLogger(__name__)


class UnavailableError(Exception):
    """A sink that may take the same events later."""


class RefusedError(Exception):
    """A sink that will not take these events."""


class Sink(Protocol):
    """A place for events."""

    def send(self, events: deque[Event]) -> None:
        """Send the first event, or several, and remove what was sent or refused.

        Raises UnavailableError, RefusedError.
        """


class FileSink:
    """A file of JSON lines. One of `size` bytes becomes `path.1`, and that one `path.2`, up to `keep`."""

    def __init__(self, path: Path, size: int, keep: int) -> None:
        self._path, self._size, self._keep = path, size, keep

    def send(self, events: deque[Event]) -> None:
        """Append all events."""
        lines = [event.json + b"\n" for event in events]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            while lines:
                self._append(lines)
                while len(events) > len(lines):
                    events.popleft()
        except OSError as error:
            raise UnavailableError(f"{self._path}: {error.strerror or error}") from None

    def _append(self, lines: list[bytes]) -> None:
        """Append lines up to the file's size, one at least, and remove them."""
        with suppress(FileNotFoundError):
            if self._path.stat().st_size + len(lines[0]) > self._size:
                self._rotate()
        # Payloads may be anybody's data.
        with open(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            room, count = self._size - file.tell(), 0
            while count < len(lines) and (count == 0 or len(lines[count]) <= room):
                room -= len(lines[count])
                count += 1
            file.write(b"".join(lines[:count]))
        del lines[:count]

    def _rotate(self) -> None:
        for number in range(self._keep - 1, 0, -1):
            with suppress(FileNotFoundError):
                os.replace(f"{self._path}.{number}", f"{self._path}.{number + 1}")
        os.replace(self._path, f"{self._path}.1")


class HttpSink:
    """A receiver of CloudEvents over HTTP."""

    def __init__(self, url: str, mode: Mode, token: str | None) -> None:
        self._url, self._mode = url, mode
        self._session = requests.Session()
        if token is not None:
            # As `auth` and not as a header, which a .netrc file would replace.
            self._session.auth = partial(_authorize, token)

    def send(self, events: deque[Event]) -> None:
        """Post the next event, or the next batch of them."""
        if self._mode == "binary":
            body, headers, count = events[0].data, cloudevents.to_headers(events[0]), 1
        elif self._mode == "structured":
            body, count = events[0].json, 1
            headers = {"content-type": cloudevents.STRUCTURED}
        else:
            batch = _first(events)
            body, count = cloudevents.to_batch(batch), len(batch)
            headers = {"content-type": cloudevents.BATCH}
        try:
            self._post(body, headers)
        except RefusedError:
            _remove(events, count)
            raise
        _remove(events, count)

    def _post(self, body: bytes, headers: dict[str, str]) -> None:
        try:
            answer = self._session.post(
                self._url, body, headers=headers, timeout=ANSWER_S, allow_redirects=False
            )
        except requests.RequestException as error:
            raise UnavailableError(f"{self._url}: {type(error).__name__}") from None
        status = answer.status_code
        if status >= 500 or status in _LATER:
            raise UnavailableError(f"{self._url}: status {status}")
        if status >= 300:
            raise RefusedError(f"{self._url}: status {status}")


class Delivery:
    """Delivers events to a sink in order, again and again while it is unavailable, and counts them."""

    def __init__(self, sink: Sink, name: str) -> None:
        self._sink, self._name = sink, name
        self.pending: deque[Event] = deque()
        self.sent = self.dropped = 0
        self._wait_s, self._next = FIRST_WAIT_S, 0.0
        self._told, self._told_at, self._reason = 0, float("-inf"), ""
        self._away = False

    def deliver(self, *, last: bool = False) -> bool:
        """Send what is pending; return whether all of it is gone. The `last` attempt drops what is left."""
        try:
            while self.pending and (last or time.monotonic() >= self._next):
                self._send()
        except UnavailableError as error:
            if not self._away:
                logger.warning("%s: %s; events wait", self._name, error)
            self._away, self._reason = True, str(error)
            self._next = time.monotonic() + self._wait_s
            self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        if last:
            self.drop(len(self.pending))
            self.pending.clear()
        return not self.pending

    def drop(self, count: int, reason: str | None = None) -> None:
        """Count events that will not be sent."""
        self.dropped += count
        self._reason = reason or self._reason

    def tell(self, *, last: bool = False) -> None:
        """Log, once in a minute, how many events were dropped."""
        new, now = self.dropped - self._told, time.monotonic()
        if new and (last or now - self._told_at >= TELL_S):
            why = f": {self._reason}" if self._reason else ""
            logger.warning("%s: %d events were dropped, %d in all%s", self._name, new, self.dropped, why)
            self._told, self._told_at, self._reason = self.dropped, now, ""

    def _send(self) -> None:
        before = len(self.pending)
        try:
            self._sink.send(self.pending)
        except RefusedError as error:
            self.drop(before - len(self.pending), str(error))
        else:
            self.sent += before - len(self.pending)
            if self.dropped == self._told:
                self._reason = ""
        self._wait_s, self._away = FIRST_WAIT_S, False


def _authorize(token: str, request: requests.PreparedRequest) -> requests.PreparedRequest:
    request.headers["authorization"] = f"Bearer {token}"
    return request


def _first(events: Iterable[Event]) -> list[Event]:
    """Return the next batch: as many events as fit, one at least."""
    batch: list[Event] = []
    room = BATCH_BYTES
    for event in events:
        room -= len(event.json)
        if batch and (room < 0 or len(batch) == BATCH_EVENTS):
            break
        batch.append(event)
    return batch


def _remove(events: deque[Event], count: int) -> None:
    for _ in range(count):
        events.popleft()
