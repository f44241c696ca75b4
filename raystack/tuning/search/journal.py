"""Where Optuna keeps a study: a journal in the study's own folder, or the database of `search.storage`.

The record is what counts. Optuna's storage holds what samplers need beyond it, and what `optuna-dashboard`
shows.
"""

import json
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend, JournalRedisBackend

from raystack.config.secret import resolve_all
from raystack.errors import LaunchError, PlanError, Problem, RaystackError
from raystack.plan.tuning import TunePlan
from raystack.tuning.record import JOURNAL, StudyStore

WHERE = "tuning.search.storage"


class Journal(BaseJournalBackend):
    """Optuna's journal in a file of any storage, in the format of Optuna's own JournalFileBackend.

    It is written as a whole, by `flush`: a driver that is killed leaves neither half a line nor a lock.
    """

    def __init__(self, store: StudyStore) -> None:
        self._storage = store.storage
        self._lines = self._read()
        self._logs: list[dict[str, Any]] = [json.loads(line) for line in self._lines]
        self._written = len(self._lines)

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        return self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        self._lines += lines
        self._logs += [json.loads(line) for line in lines]

    def flush(self) -> None:
        """Write what was appended."""
        if self._written < len(self._lines):
            self._storage.write(JOURNAL, "\n".join([*self._lines, ""]))
            self._written = len(self._lines)

    def _read(self) -> list[str]:
        """Return the lines of the file; none if it is not there or damaged: the record has what is in it."""
        try:
            lines = self._storage.read(JOURNAL).splitlines()
            for line in lines:
                json.loads(line)
        except (FileNotFoundError, ValueError):
            return []
        return lines


def open_storage(plan: TunePlan, store: StudyStore) -> tuple[BaseStorage, Journal | None]:
    """Return Optuna's storage, and the journal to flush if it is the study's own.

    Raises PlanError if the database of `search.storage` cannot be opened.
    """
    url = address(plan)
    if url is None:
        journal = Journal(store)
        return JournalStorage(journal), journal
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if url.startswith(("redis://", "rediss://", "unix://")):
                return JournalStorage(JournalRedisBackend(url)), None
            return RDBStorage(url), None
    except Exception as error:  # the drivers behind such a URL have classes of their own
        raise PlanError(_unreachable(url, error)) from None


def address(plan: TunePlan) -> str | None:
    """Return the URL of `search.storage`, with its secret; None if it is not set."""
    url: str | None = resolve_all(getattr(plan.tuning.search, "storage", None))
    return url


@contextmanager
def reached(url: str | None) -> Iterator[None]:
    """Raise LaunchError if the database of `search.storage` fails in this block."""
    try:
        yield
    except RaystackError:
        raise
    except Exception as error:  # as in open_storage
        if url is None:
            raise
        raise LaunchError(_unreachable(url, error)) from error


def _unreachable(url: str, error: Exception) -> Problem:
    reason = str(error.__cause__ or error).splitlines()[0]
    return Problem(
        WHERE,
        rule=f"Optuna cannot use it: {_shown(reason)}",
        got=_shown(url),
        remedy="leave it out, and the study's own folder is used",
    )


def _shown(text: str) -> str:
    """Return the text without passwords of URLs."""
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", text)
