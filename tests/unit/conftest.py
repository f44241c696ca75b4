"""An S3 that runs in this process, and an MLflow store without anything in it."""

import logging
import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer


class ObjectStore:
    """An S3 that can go away and come back with what it held."""

    def __init__(self) -> None:
        self._port = _lasting_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.come_back()
        # A fork, such as a loader process of another test, would keep the port in use while this is away.
        os.register_at_fork(after_in_child=self._close)

    def come_back(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()

    def go_away(self) -> None:
        self._server.stop()

    def _close(self) -> None:
        assert self._server._server is not None
        self._server._server.socket.close()


def _lasting_port() -> int:
    """A free port that nobody is given while the store is away: Ray's workers are below it, and the ports
    that the kernel chooses above.
    """
    for port in random.SystemRandom().sample(range(20000, 30000), 100):
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """Found through the environment alone, as a user's would be."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = ObjectStore()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", store.url)
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_MAX_ATTEMPTS", "1")
        yield store
    store.go_away()


@pytest.fixture
def away(object_store: ObjectStore) -> Callable[[], AbstractContextManager[None]]:
    """The S3 is away for the time of a block."""

    @contextmanager
    def away() -> Iterator[None]:
        object_store.go_away()
        try:
            yield
        finally:
            object_store.come_back()

    return away


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with MLflow's tables; copying it is faster than making another."""
    from raystack.registry.connection import connect  # imports MLflow, which most tests do without

    database = tmp_path_factory.mktemp("empty") / "mlflow.db"
    connect(f"sqlite:///{database}", None)
    return database


@pytest.fixture(scope="module")
def wandb_ended() -> Iterator[None]:
    """End the process of W&B's with the module, and its threads: other tests fork."""
    import wandb  # takes a second, which most tests do without

    yield
    wandb.teardown()
