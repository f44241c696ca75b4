"""MLflow's SQLite file is whole, wherever the process that makes it is killed."""

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from raystack.registry.connection import connect

pytestmark = pytest.mark.slow

KILLED = """
import os, sys
import sqlalchemy
from raystack.registry.connection import connect

left = int(sys.argv[2])

def executed(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), 9)

sqlalchemy.event.listen(sqlalchemy.Engine, "after_cursor_execute", executed)
connect(f"sqlite:///{sys.argv[1]}", None)
"""

OLDER = """
import sys
import sqlalchemy
from alembic import command
from mlflow.store.db.utils import InitialBase, _get_alembic_config

engine = sqlalchemy.create_engine(f"sqlite:///{sys.argv[1]}")
InitialBase.metadata.create_all(engine)
config = _get_alembic_config(str(engine.url))
with engine.begin() as connection:
    config.attributes["connection"] = connection
    command.upgrade(config, "cfd24bdc0731")
"""


def killed_at(database: Path, statement: int) -> None:
    """A process is killed after so many statements of its first connection."""
    command = [sys.executable, "-c", KILLED, str(database), str(statement)]
    process = subprocess.run(command, capture_output=True, timeout=100, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()


def tables(database: Path) -> dict[str, str]:
    with sqlite3.connect(database) as connection:
        found = dict(
            connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
        )
    connection.close()
    return found


@pytest.mark.parametrize("statement", [20, 400])
def test_a_store_whose_maker_was_killed_is_made_by_the_next_run(
    tmp_path: Path, empty_store: Path, statement: int
) -> None:
    database = tmp_path / "mlflow.db"
    killed_at(database, statement)
    assert not database.exists(), "a part of it is not in its place"
    connect(f"sqlite:///{database}", None)
    assert tables(database).keys() == tables(empty_store).keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_an_upgrade_that_was_killed_is_done_by_the_next_run(tmp_path: Path, empty_store: Path) -> None:
    database = tmp_path / "mlflow.db"
    subprocess.run([sys.executable, "-c", OLDER, str(database)], check=True, capture_output=True, timeout=100)
    before = tables(database)
    killed_at(database, 300)
    assert tables(database) == before, "it is upgraded beside its place"
    connect(f"sqlite:///{database}", None)
    assert tables(database).keys() == tables(empty_store).keys()


def test_a_store_that_something_else_left_half_made_is_told(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    subprocess.run([sys.executable, "-c", OLDER, str(database)], check=True, capture_output=True, timeout=100)
    with sqlite3.connect(database) as connection:  # the next migration's column, without the mark of its end
        connection.execute("ALTER TABLE experiments ADD COLUMN creation_time BIGINT")
    connection.close()
    with pytest.raises(Exception, match=r"mlflow\.db is not a whole MLflow store: duplicate column name"):
        connect(f"sqlite:///{database}", None)
