"""Bodies that come slowly, in pieces, too large or not at all, over real connections."""

import gzip
import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from raystack.serving.rest.body import Limits
from tests.unit.serving.http.web import GOOD, Sum, Web, running, sent, serving, version

BODY = json.dumps(GOOD).encode()
PATH = "/v2/models/demo/infer"
LIMITS = Limits(size=100_000, seconds=1.5)


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    server = serving(max_ongoing=2, max_queued=2)
    server.put(version())
    with running(server, LIMITS) as web:
        yield web


def head(length: int | None, extra: str = "") -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST {PATH} HTTP/1.1\r\nHost: test\r\n{size}\r\n{extra}\r\n".encode()


def answer(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    """Status, headers and body of the answer that comes."""
    found = b""
    while b"\r\n\r\n" not in found:
        piece = connection.recv(65536)
        assert piece, found
        found += piece
    top, _, body = found.partition(b"\r\n\r\n")
    lines = top.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    return int(lines[0].split()[1]), headers, json.loads(body)


def test_clients_that_do_not_send_their_bodies_hold_nobody_up(web: Web) -> None:
    with ExitStack() as open_ones:
        slow = [open_ones.enter_context(web.connect()) for _ in range(50)]
        for connection in slow:
            connection.sendall(head(len(BODY)) + BODY[:1])
        started = time.monotonic()
        assert httpx.post(web.url + PATH, json=GOOD).status_code == 200
        assert time.monotonic() - started < LIMITS.seconds
        for connection in slow:
            status, headers, body = answer(connection)
            assert (status, headers["connection"]) == (408, "close")
            assert body == {"error": "body: did not arrive within 1.5 s"}


def test_a_body_in_pieces_is_whole_in_the_end(web: Web) -> None:
    with web.connect() as connection:
        connection.sendall(head(None))
        for start in range(0, len(BODY), 60):
            piece = BODY[start : start + 60]
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            time.sleep(0.01)
        connection.sendall(b"0\r\n\r\n")
        assert answer(connection)[0] == 200


def test_a_body_that_is_announced_too_large_is_not_waited_for(web: Web) -> None:
    with web.connect() as connection:
        connection.sendall(head(100_001))
        status, _, body = answer(connection)
    assert status == 413
    assert body == {"error": "body: should have at most 0.1 MB; send fewer samples, or raise serving.body_mb"}


def test_a_body_of_unknown_length_ends_at_the_limit(web: Web) -> None:
    with web.connect() as connection:
        connection.sendall(head(None) + b"%x\r\n" % 1_000_000 + b" " * 150_000)
        assert answer(connection)[:2][0] == 413


def test_a_compressed_body_counts_unpacked(web: Web) -> None:
    packed = gzip.compress(b" " * 1_000_000)
    assert len(packed) < 100_000
    response = httpx.post(web.url + PATH, content=packed, headers={"Content-Encoding": "gzip"})
    assert response.status_code == 413
    small = gzip.compress(BODY)
    assert httpx.post(web.url + PATH, content=small, headers={"Content-Encoding": "gzip"}).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_an_answer_is_compressed_as_the_client_asks(web: Web, encoding: str) -> None:
    response = httpx.post(web.url + PATH, json=GOOD, headers={"Accept-Encoding": encoding})
    assert response.headers["content-encoding"] == encoding
    assert response.json()["outputs"][0]["data"] == [3.0, 7.0]


def test_clients_that_go_away_leave_no_slot_taken() -> None:
    server, model = serving(max_ongoing=2, max_queued=2), Sum()
    server.put(version(model=model))
    admission = server.models["demo"].admission
    with running(server) as web, httpx.Client(timeout=60) as client:

        def until(ongoing: int, waiting: int) -> None:
            limit = time.monotonic() + 60
            while web.call(lambda: (admission.ongoing, admission.waiting)) != (ongoing, waiting):
                assert time.monotonic() < limit
                time.sleep(0.01)

        # It takes 0.1 s, so that those behind it are watched.
        assert client.post(web.url + PATH, json=sent(100)).status_code == 200
        gone, body = [], json.dumps(sent(2000)).encode()
        for _ in range(4):
            connection = web.connect()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(head(len(body)) + body)
            gone.append(connection)
        until(2, 2)
        refused = client.post(web.url + PATH, json=GOOD)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        for connection in gone:
            connection.close()
        until(0, 0)
        assert client.post(web.url + PATH, json=sent(100)).status_code == 200
        assert len(model.passes) == 3, "those that waited were computed for nobody"


def test_a_large_body_does_not_hold_up_a_small_one() -> None:
    server = serving()
    server.put(version(model=Sum(), max_size=100))
    rows = 100_000
    large = {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [rows, 2], "data": [0.25] * 2 * rows},
            {"name": "n", "datatype": "INT64", "shape": [rows, 1], "data": [7] * rows},
        ]
    }
    with running(server) as web, web.connect() as connection:
        httpx.post(web.url + PATH, json=GOOD)
        body = json.dumps(large).encode()
        connection.sendall(head(len(body)) + body)
        longest = 0.0
        with httpx.Client() as client:
            connection.setblocking(False)
            while True:
                started = time.monotonic()
                assert client.post(web.url + PATH, json=GOOD).status_code == 200
                longest = max(longest, time.monotonic() - started)
                try:
                    first = connection.recv(1)
                    break
                except BlockingIOError:
                    continue
        connection.setblocking(True)
        status, _, found = answer_after(first, connection)
    assert status == 200
    assert found["outputs"][0]["data"] == [0.5] * rows
    assert longest < 1, longest


def answer_after(first: bytes, connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    class Behind:
        def __init__(self) -> None:
            self.first = first

        def recv(self, size: int) -> bytes:
            piece, self.first = self.first, b""
            return piece or connection.recv(size)

    return answer(Behind())  # type: ignore[arg-type]
