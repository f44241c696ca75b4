"""MLflow's SQLite file, made and upgraded in one piece: whenever the process is killed, the file is whole.

MLflow makes its tables in some hundred statements that are committed one by one, and cannot go on from the
middle. Importing this module imports MLflow.
"""

# mypy: disable-error-code="no-untyped-call"
# Parts of MLflow have no annotations.

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from mlflow.store.db.base_sql_model import Base
from mlflow.store.db.utils import _initialize_tables
from sqlalchemy.exc import DatabaseError

from raystack.registry.command import UnavailableError

MAGIC = b"SQLite format 3\0"


@contextmanager
def prepared(uri: str) -> Iterator[None]:
    """Make or upgrade the SQLite file of `uri`, if it is one, and keep other processes from it in the block.

    MLflow fails where two processes first open a file together. Raises UnavailableError if the file is
    damaged or is no store, and OSError.
    """
    database = _file(uri)
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{database}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if database.exists() and (database.is_dir() or database.stat().st_size > 0):
            _upgrade(database)
        else:
            _make(database)
        yield


def _file(uri: str) -> Path | None:
    if not uri.startswith("sqlite:"):
        return None
    name = sqlalchemy.make_url(uri).database
    return Path(name) if name and name != ":memory:" else None


def _make(database: Path) -> None:
    """Make the store beside its place, and move it there."""
    with _beside(database) as new:
        _initialize(new)
        with new.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(new, database)


def _upgrade(database: Path) -> None:
    """Upgrade a copy of an older MLflow's store where MLflow would, and write it back in one transaction.

    MLflow upgrades a store that lacks tables, and else asks for `mlflow db upgrade`.
    """
    if database.is_dir() or database.open("rb").read(len(MAGIC)) != MAGIC:
        raise _unusable(database, "it is no SQLite database")
    try:
        with closing(sqlite3.connect(database)) as old:
            names = {name for (name,) in old.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if names >= set(Base.metadata.tables):
                return
            with _beside(database) as new:
                with closing(sqlite3.connect(new)) as copy:
                    old.backup(copy)
                _initialize(new)
                with closing(sqlite3.connect(new)) as copy:
                    copy.backup(old)
    except (sqlite3.DatabaseError, DatabaseError) as error:
        rule = str(error.orig if isinstance(error, DatabaseError) else error)
        if "locked" in rule or "full" in rule:
            raise  # by a process that is at work on it, or the disk: the file is not to blame
        raise _unusable(database, rule) from error


@contextmanager
def _beside(database: Path) -> Iterator[Path]:
    """Yield the place of a new file. The lock makes one name enough: a file there is a killed process's."""
    new = Path(f"{database}.new")
    new.unlink(missing_ok=True)
    try:
        yield new
    finally:
        new.unlink(missing_ok=True)


def _initialize(new: Path) -> None:
    """Have MLflow make or upgrade the tables of a file that nobody else has; a crash may cost it."""
    engine = sqlalchemy.create_engine(f"sqlite:///{new}", poolclass=sqlalchemy.NullPool)

    def connected(connection: sqlite3.Connection, record: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = MEMORY")

    sqlalchemy.event.listen(engine, "connect", connected)
    try:
        _initialize_tables(engine)
    finally:
        engine.dispose()


def _unusable(database: Path, rule: str) -> UnavailableError:
    return UnavailableError(
        f"{database} is not a whole MLflow store: {rule}; move it away, and the next run makes a new one"
    )
