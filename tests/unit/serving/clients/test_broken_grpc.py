"""Calls that are broken at any level, from HTTP/2's bytes to a tensor's values: none is the server's fault,
none costs it anything.
"""

import gc
import random
import time
from collections import Counter
from collections.abc import Iterator

import grpc
import pytest

from raystack.serving.server import Server
from tests.unit.serving.clients.both import Both, serving
from tests.unit.serving.clients.broken_grpc import SERVICE, ask, broken_bytes, good, send
from tests.unit.serving.clients.demo import a_server, is_idle, resident

LARGEST = 1_000_000


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with serving(a_server(LARGEST)) as both:
        yield both


def answers(channel: grpc.Channel) -> bool:
    return bool(channel.unary_unary(f"{SERVICE}/ModelInfer")(good().SerializeToString(), timeout=60))


def until_idle(both: Both, server: Server) -> None:
    limit = time.monotonic() + 60
    while not both.web.call(is_idle, server):
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_no_broken_call_is_the_servers_fault(both: Both) -> None:
    chance = random.Random(1)
    with grpc.insecure_channel(both.grpc) as channel:
        codes = Counter(ask(channel, chance) for _ in range(150))
        for _ in range(30):
            send(both.grpc, broken_bytes(chance))
        assert answers(channel)
    assert codes["INVALID_ARGUMENT"] > 50
    assert codes["OK"] > 10
    until_idle(both, both.server)


@pytest.mark.long
def test_two_thousand_of_them_leave_nothing_in_memory(both: Both) -> None:
    chance, before = random.Random(2), 0
    with grpc.insecure_channel(both.grpc) as channel:
        for number in range(8):
            for _ in range(250):
                ask(channel, chance)
            for _ in range(25):
                send(both.grpc, broken_bytes(chance))
            assert answers(channel)
            gc.collect()
            if number == 3:
                before = resident()
    assert resident() - before < 10_000_000
    until_idle(both, both.server)
