"""Why MLflow does not answer, in the words of a user: with real servers and files that are not MLflow's."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from raystack.registry.command import Metrics, RejectedError, Run, UnavailableError
from raystack.registry.connection import connect
from raystack.registry.store import Store

pytestmark = pytest.mark.slow
Answer = Callable[[BaseHTTPRequestHandler], None]
LOGIN = b"<!DOCTYPE html>\n<title>Sign in</title>"


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """Address of a server that answers every request in the same way."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer(self)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


def page(status: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        moved = request.path.startswith("/login")
        request.send_response(200 if moved else status)
        for name, value in {} if moved else headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(LOGIN if moved else body)

    return answer


def nothing(request: BaseHTTPRequestHandler) -> None:
    time.sleep(1.0)


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        (page(200, LOGIN), UnavailableError, "no JSON, such as a login page (<!DOCTYPE html>)"),
        (
            page(302, Location="/login?next=/"),
            UnavailableError,
            "no JSON, such as a login page (<!DOCTYPE html>)",
        ),
        (page(302, Location="/again"), UnavailableError, "it redirects without an end"),
        (
            page(200, b'{"experiments": ['),
            UnavailableError,
            'no JSON, such as a login page ({"experiments": [)',
        ),
        (page(401, b"who are you?"), RejectedError, "it answers with status 401: who are you?"),
        (page(403, LOGIN), RejectedError, "it answers with status 403"),
        (page(404, LOGIN), RejectedError, "it answers with status 404"),
        (page(429, b"slowly"), UnavailableError, "it answers with status 429"),
        (page(500, LOGIN), UnavailableError, "it answers with status 500"),
        (page(503), UnavailableError, "it answers with status 503"),
        (nothing, UnavailableError, "no answer within 0.3 s"),
    ],
)
def test_a_server_that_is_not_mlflow(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, error: type[Exception], reason: str
) -> None:
    if answer is nothing:
        monkeypatch.setattr("raystack.registry.connection.REQUEST_S", 0.3)
    with server(answer) as uri, pytest.raises(error) as raised:
        connect(uri, None)
    assert str(raised.value).endswith(reason)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"status": "ok"}'])
def test_a_server_that_takes_everything_and_is_not_mlflow(body: bytes) -> None:
    with server(page(200, body)) as uri:
        run = Run(tracking_uri=uri, experiment="e", run_id="r", artifacts=None, tags={}, started_ms=0)
        with pytest.raises(UnavailableError, match="it answers as no MLflow server does"):
            Store(uri, None).open(run)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://127.0.0.1:9", "the connection is refused"),
        ("http://nowhere.invalid:5000", "the name of its host cannot be resolved"),
    ],
)
def test_a_server_that_is_not_there(uri: str, reason: str) -> None:
    with pytest.raises(UnavailableError, match=reason):
        connect(uri, None)


def test_https_to_a_server_without_it() -> None:
    with server(page(200)) as uri, pytest.raises(UnavailableError, match="no TLS connection"):
        connect(uri.replace("http:", "https:"), None)


def test_a_file_that_is_no_store_is_named_with_what_to_do(tmp_path: Path, empty_store: Path) -> None:
    whole = empty_store.read_bytes()
    (tmp_path / "text.db").write_text("this is no database")
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "cut.db").write_bytes(whole[: len(whole) // 2])
    for name in ("text.db", "folder.db", "cut.db"):
        with pytest.raises(UnavailableError, match=rf"{name} is not a whole MLflow store: .*; move it away"):
            connect(f"sqlite:///{tmp_path / name}", None)


def test_a_database_says_why_in_its_own_words(tmp_path: Path, empty_store: Path) -> None:
    """Without SQLAlchemy's, some of which come first: "raised as a result of Query-invoked autoflush"."""
    database = tmp_path / "mlflow.db"
    database.write_bytes(empty_store.read_bytes())
    run = Run(tracking_uri="x", experiment="e", run_id="r", artifacts=None, tags={}, started_ms=0)
    opened = Store(f"sqlite:///{database}", None).open(run)
    with sqlite3.connect(database) as connection:
        connection.execute("DROP TABLE metrics")
    connection.close()
    with pytest.raises(UnavailableError) as raised:
        opened.apply([Metrics(points=(("train/loss", 1.0, 1, 1),))])
    assert str(raised.value) == "no such table: metrics"
