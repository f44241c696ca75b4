"""The background thread that sends commands to MLflow, in order, so that training does not wait for it.

One thread, with one connection and one spool file, serves a run and all runs that are nested in it.

While MLflow is unavailable, the commands stay queued and are copied to the spool file, which outlives this
process; the thread retries with backoff. The user is warned of an outage once it has lasted some seconds, and
why; at the end a note says what is still missing. Nothing here stops a run.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from raystack.registry.command import (
    Command,
    End,
    Metrics,
    Registered,
    RejectedError,
    Run,
    UnavailableError,
    now_ms,
)
from raystack.registry.outbox import Outbox, Waiting
from raystack.registry.replay import apply, replay
from raystack.registry.spool import Spool

if TYPE_CHECKING:
    from raystack.registry.store import OpenRun, Store
    from raystack.registry.system import SystemProbe

logger = logging.getLogger(__name__)

FIRST_RETRY_S, LAST_RETRY_S, HURRIED_RETRY_S = 0.5, 30.0, 1.0
FIRST_SAMPLE_S, SAMPLE_S = 1.0, 10.0
"""Seconds until the first sample of system metrics, and between samples (MLflow's own interval)."""

PATIENCE_S, LIMIT_S = 10.0, 60.0
"""Seconds that the end of a run waits for MLflow: while it is unavailable, and at most."""

AWAY_S = 3.0
"""Seconds of an outage after which the user is warned."""


class Sender:
    """Sender of the commands of one run, and of those nested in it, every `flush_s` seconds.

    `warn` takes a line, from any thread.
    """

    def __init__(
        self,
        run: Run,
        folder: Path,
        *,
        header: str | None,
        flush_s: float,
        sample: bool,
        warn: Callable[[str], None],
    ) -> None:
        self.opened: OpenRun | None = None
        self.notes: dict[str, None] = {}
        self._run, self._folder, self._header, self._flush_s = run, folder, header, flush_s
        self._spool = Spool(folder, run)
        self._outbox = Outbox()
        self._nested: dict[str, OpenRun] = {}
        self._changed = threading.Condition()
        self._saving = (
            threading.Lock()
        )  # guards the spool; separate, because a slow disk must not block `put`
        self._hurry = self._wake = self._stop = self._ended = False
        self._warn, self._warned = warn, False
        self._away_since: float | None = None  # start of an outage, until all commands of that time were sent
        self._failed_at: float | None = None  # first of the consecutive requests without an answer
        self._reason: str | None = None  # why MLflow does not take the commands
        self._refused = False  # whether a retry would not help
        self._store: Store | None = None
        self._wants_samples, self._next_sample = sample, 0.0
        self._probe: SystemProbe | None = None
        self._thread = threading.Thread(target=self._loop, name="raystack-mlflow", daemon=True)

    def start(self) -> None:
        """Start sending. Further calls do nothing."""
        if self._thread.ident is None:
            self._thread.start()

    def put(
        self, command: Command, run: Run | None = None, *, at_once: bool = False
    ) -> Future[Registered | None]:
        """Queue a command without blocking. The future is done once it was sent or rejected.

        `run` is a nested run; None is the sender's own. The order of a run's commands is kept, and the end of
        the own run is sent last. What comes after that, such as a sample of the machine's use, is dropped: it
        would be left for the next run.
        """
        run = run or self._run
        with self._changed:
            if self._ended:
                return Future()
            waiting = self._outbox.add(run, command)
            if run is self._run and isinstance(command, End):
                self._ended = True
                self._outbox.put_last(run)
            if at_once:
                self._wake = self._hurry = True
                self._changed.notify_all()
        return waiting.answer

    def wait(self, answer: Future[Registered | None]) -> bool:
        """Wait for a command while MLflow responds. Return False if it is unavailable."""
        started = time.monotonic()
        with self._changed:
            while not answer.done() and not self._gave_out(started):
                self._changed.wait(0.5)
        return answer.done()

    def close(self, end: End) -> None:
        """Send `end` and wait for it within limits; unsent commands remain in the spool file."""
        answer, started = self.put(end, at_once=True), time.monotonic()
        try:
            with self._changed:
                while (
                    not answer.done() and not self._gave_out(started) and time.monotonic() - started < LIMIT_S
                ):
                    self._changed.wait(0.5)
        finally:
            self._leave()

    def _gave_out(self, started: float) -> bool:
        away = self._failed_at is not None and time.monotonic() - max(started, self._failed_at) > PATIENCE_S
        return self._refused or away

    def _leave(self) -> None:
        with self._changed:
            self._stop = True
            left = len(self._outbox)
            self._changed.notify_all()
        if not left:
            self._came_back()
        with self._saving:
            if left:
                self._note_missing(left, self._save())
            with suppress(OSError):
                self._spool.close()

    def _note_missing(self, left: int, unsaved: OSError | None) -> None:
        reason = self._reason or f"it took longer than {LIMIT_S:g} s"
        missing = f"MLflow at {self._run.tracking_uri} has not got everything ({reason})"
        if unsaved is None:
            waiting = "1 command waits" if left == 1 else f"{left} commands wait"
            self.note(f"{missing}: {waiting} in {self._spool.path} for the next run that reaches it")
        else:
            why = unsaved.strerror or unsaved
            self.note(f"{missing}, and what is missing could not be written to {self._spool.path}: {why}")

    def _save(self) -> OSError | None:
        """Append the queued commands that are not in the spool file yet. Return the error if that fails."""
        with self._changed:
            new = [waiting for waiting in self._outbox if not waiting.spooled]
        try:
            if new:
                self._spool.append([(waiting.run, waiting.command) for waiting in new])
        except OSError as error:
            return error
        for waiting in new:
            waiting.spooled = True
        return None

    def note(self, text: str) -> None:
        """Add a note for the user, unless it was added before."""
        self.notes[text] = None

    def _loop(self) -> None:
        try:
            self._send_until_closed()
        except RejectedError as error:
            self._refuse(str(error))
        except Exception as error:  # MLflow and its plugins may raise anything, and the run is not theirs
            logger.debug("nothing more is sent to MLflow", exc_info=True)
            self._refuse(f"{type(error).__name__}: {error}".splitlines()[0])

    def _refuse(self, reason: str) -> None:
        """Send nothing more, and keep everything for a later run."""
        with self._changed:
            self._reason, self._refused = reason, True
            self._changed.notify_all()
        self._tell(f"MLflow at {self._run.tracking_uri} does not take this run: {reason}")
        while not self._stop:
            with self._saving:
                self._save()
            self._sleep(LAST_RETRY_S)

    def _tell(self, text: str) -> None:
        """Warn the user at once, unless the run has ended: its notes are shown then."""
        if not self._ended:
            self._warn(text)

    def _send_until_closed(self) -> None:
        retry_s = FIRST_RETRY_S
        while not self._stop:
            began = time.monotonic()
            try:
                self._send_all()
            except UnavailableError as error:
                self._fell_away(str(error), began)
                pause_s = min(retry_s, HURRIED_RETRY_S) if self._hurry else retry_s
                retry_s = min(retry_s * 2, LAST_RETRY_S)
            else:
                if not self._stop:
                    self._came_back()
                pause_s, retry_s = self._flush_s, FIRST_RETRY_S
            self._sleep(pause_s)

    def _sleep(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._wake or self._stop, timeout=seconds)
            self._wake = False

    def _fell_away(self, reason: str, began: float) -> None:
        """Keep the queue on disk after a request that `began` then had no answer."""
        with self._changed:
            self._failed_at = self._failed_at or time.monotonic()
            self._away_since = self._away_since or self._failed_at
            self._reason = reason
            self._changed.notify_all()
        with self._saving:
            unsaved = None if self._stop else self._save()
        if not self._warned and time.monotonic() - min(began, self._failed_at) > AWAY_S:
            self._warned = True
            waits = "in memory" if unsaved else f"in {self._spool.path}"
            self._tell(
                f"MLflow at {self._run.tracking_uri} is away: {reason}; the run goes on, and its record waits"
                f" {waits}"
            )

    def _came_back(self) -> None:
        """Report an outage that is over, and discard the spool file, once the queue is empty."""
        with self._saving, self._changed:
            if self._away_since is None or len(self._outbox):
                return
            away_s = time.monotonic() - self._away_since
            self.note(
                f"MLflow at {self._run.tracking_uri} was away for {away_s:.0f} s ({self._reason}); it has"
                " everything from that time"
            )
            self._away_since, self._reason, self._warned = None, None, False
            with suppress(OSError):  # a file that stays is sent again by the next run, which doubles nothing
                self._spool.discard()

    def _send_all(self) -> None:
        """Send the queue. Raise UnavailableError, or RejectedError if MLflow rejects the run as a whole."""
        if self._store is None:
            from raystack.registry.store import Store  # imports MLflow

            self._store = Store(self._run.tracking_uri, self._header)
        if self.opened is None:
            self.opened = self._open(self._store)
        self._sample(self._store, self.opened)
        while not self._stop and (waiting := self._front()):
            opened = self._opened(self._store, waiting[0].run)
            registered = apply(opened, [each.command for each in waiting], self.note)
            self._done(waiting, registered)

    def _open(self, store: "Store") -> "OpenRun":
        unsent = replay(self._folder, self._run.tracking_uri, store.open, self.note)
        opened = _resumed(store.open(self._run), self._run)
        for note in unsent:
            self.note(note)
        return opened

    def _opened(self, store: "Store", run: Run) -> "OpenRun":
        assert self.opened is not None
        if run is self._run:
            return self.opened
        if run.run_id not in self._nested:
            self._nested[run.run_id] = _resumed(store.open(run, self.opened), run)
        return self._nested[run.run_id]

    def _front(self) -> list[Waiting]:
        with self._changed:
            return self._outbox.front()

    def _done(self, sent: Sequence[Waiting], registered: Registered | None) -> None:
        if isinstance(sent[-1].command, End):
            self._nested.pop(sent[-1].run.run_id, None)
        with self._changed:
            self._outbox.drop(sent)
            for each in sent:
                each.answer.set_result(registered)
            self._failed_at = None
            self._changed.notify_all()

    def _sample(self, store: "Store", opened: "OpenRun") -> None:
        now = time.monotonic()
        if not self._wants_samples or now < self._next_sample:
            return
        try:
            if self._probe is None:
                self._probe, self._next_sample = store.probe(), now + FIRST_SAMPLE_S
                return
            values = self._probe.sample()
        except (ImportError, OSError, RuntimeError) as error:
            self._wants_samples = False
            self.note(f"no system metrics: {error}")
            return
        self._next_sample = now + SAMPLE_S
        at = now_ms()
        step = max(0, at - opened.started_ms) // 1000
        self.put(Metrics(points=tuple((key, value, at, step) for key, value in values.items())))


def _resumed(opened: "OpenRun", run: Run) -> "OpenRun":
    if not opened.created and not run.over:
        opened.resume()
    return opened
