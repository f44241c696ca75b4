"""Requests that are broken at any level, from a socket's bytes to a tensor's values: none is the server's
fault, none costs it anything.
"""

import gc
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from raystack.serving.rest.body import Limits
from raystack.serving.server import Server
from tests.unit.serving.clients.broken_http import INFER, LIMIT, Broken, answers, broken, good, request
from tests.unit.serving.clients.demo import a_server, is_idle, resident
from tests.unit.serving.http.web import Web, running
from tests.unit.serving.spoiled import DTYPES, VALUES

GOOD = Broken("good", (good(),))


@pytest.fixture(scope="module")
def server() -> Server:
    return a_server(LIMIT)


@pytest.fixture(scope="module")
def web(server: Server) -> Iterator[Web]:
    with running(server, Limits(LIMIT, 30.0)) as web:
        yield web


def blames_the_client(port: int, each: Broken) -> None:
    found = answers(port, each)
    assert all(200 <= status < 500 for status in found), (each.kind, found, each.sent)
    assert found or not each.whole, (each.kind, each.sent)


def test_no_broken_request_is_the_servers_fault(web: Web, server: Server) -> None:
    for each in broken(1, 150):
        blames_the_client(web.port, each)
    assert answers(web.port, GOOD) == [200]
    until_idle(web, server)


@pytest.mark.long
def test_two_thousand_of_them_leave_nothing_in_memory(web: Web, server: Server) -> None:
    before = 0
    with ThreadPoolExecutor(4) as threads:
        for number in range(8):
            list(threads.map(lambda each: blames_the_client(web.port, each), broken(2 + number, 250)))
            assert answers(web.port, GOOD) == [200]
            gc.collect()
            if number == 3:
                before = resident()
    assert resident() - before < 10_000_000
    until_idle(web, server)


def test_a_hundred_clients_that_send_a_byte_at_a_time_hold_nobody_up(web: Web, server: Server) -> None:
    body = json.dumps(
        {"instances": [{name: VALUES[name][row] for name in DTYPES} for row in range(3)]}
    ).encode()
    whole = request(b"POST", b"/v1/models/demo:predict", body)
    with ExitStack() as stack:
        slow = [stack.enter_context(web.connect()) for _ in range(100)]
        for connection in slow:
            connection.sendall(whole[:-40])
        longest = 0.0
        for at in range(len(whole) - 40, len(whole)):
            for connection in slow:
                connection.sendall(whole[at : at + 1])
            began = time.monotonic()
            assert answers(web.port, GOOD) == [200]
            longest = max(longest, time.monotonic() - began)
        for connection in slow:
            assert connection.recv(12) == b"HTTP/1.1 200"
    assert longest < 5, longest
    until_idle(web, server)


@pytest.mark.parametrize(
    ("name", "status"),
    [(b"demo", 400), (b"%64%65mo", 400), (b"demo%2f", 404), (b"nope", 404), (b"%ff", 404), (b"%zz", 404)],
)
def test_a_name_may_be_percent_encoded(web: Web, name: bytes, status: int) -> None:
    sent = request(b"POST", INFER.replace(b"demo", name), b"{}")
    assert answers(web.port, Broken("path", (sent,))) == [status]


def test_a_header_of_thousands_of_digits_is_a_wrong_number(web: Web) -> None:
    for digits in (4_000, 5_000, 50_000):
        length = (b"Inference-Header-Content-Length", b"9" * digits)
        assert answers(web.port, Broken("header", (request(b"POST", INFER, b"{}", length),))) == [400]


def until_idle(web: Web, server: Server) -> None:
    limit = time.monotonic() + 60
    while not web.call(is_idle, server):
        assert time.monotonic() < limit
        time.sleep(0.01)
