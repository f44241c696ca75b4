"""Thousands of broken requests to a deployment: HAProxy, a replica, over HTTP and over gRPC."""

import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import grpc
import pytest
from driver import TINY
from processes import Command
from test_serving_ends import free_ports
from test_signals import marked

from tests.unit.serving.clients.broken_grpc import SERVICE, ask, broken_bytes, send
from tests.unit.serving.clients.broken_grpc import good as good_message
from tests.unit.serving.clients.broken_http import Broken, answers, broken, good
from tests.unit.serving.clients.demo import resident, write_demo

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(1200)]
REQUESTS = 2_000
GROWTH = 20_000_000
"""Bytes that the replicas may have more after the second half of them than after the first."""


class Deployed(NamedTuple):
    """Where a deployment listens, and how to find what it runs."""

    http: int
    grpc: int
    mark: str

    def replicas(self) -> list[int]:
        """Process ids."""
        return sorted(pid for pid, name in marked(self.mark).items() if name.startswith("ray::ServeReplica"))

    def resident(self) -> int:
        """Bytes that they have in memory together."""
        return sum(map(resident, self.replicas()))


KINDS = {
    "one model": ["serving.model={0}", "serving.name=demo"],
    "a model of several": ["serving.models.demo.model={0}", "serving.models.other.model={0}"],
    "a model that shares replicas": ["serving.multiplexed.models.demo.model={0}"],
}


@pytest.fixture(params=KINDS)
def deployed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployed]:
    model = write_demo(tmp_path)
    http, own_grpc = free_ports()
    mark = f"RAYSTACK_TEST_MARK={uuid4().hex}"
    key, _, value = mark.partition("=")
    overrides = [f"serving.port={http}", f"serving.grpc_port={own_grpc}", "serving.body_mb=1"]
    overrides += [each.format(model) for each in KINDS[request.param]]
    overrides += ["serving.cpus_per_replica=0.1"]
    run = Command(
        [sys.executable, "-m", "raystack.serve", str(TINY), *overrides],
        {**os.environ, "RAYSTACK_STORAGE": str(tmp_path / "storage"), key: value},
    )
    run.until("serving until Ctrl-C")
    yield Deployed(http, own_grpc, mark)
    run.terminate()
    assert run.wait() == 0, run.output
    assert "Traceback" not in run.output, run.output


def test_no_replica_is_lost_and_none_grows(deployed: Deployed) -> None:
    before = deployed.replicas()
    assert before
    over_http(deployed)
    assert deployed.replicas() == before
    over_grpc(deployed)
    assert deployed.replicas() == before


def over_http(deployed: Deployed) -> None:
    statuses: Counter[int] = Counter()
    held = 0
    for number, each in enumerate(broken(11, REQUESTS)):
        found = answers(deployed.http, each)
        assert all(200 <= status < 500 for status in found), (each.kind, found, each.sent)
        assert found or not each.whole, (each.kind, each.sent)
        statuses.update(found)
        if number == REQUESTS // 2:
            held = deployed.resident()
    assert statuses[400] > REQUESTS / 3
    assert answers(deployed.http, Broken("good", (good(),))) == [200]
    assert deployed.resident() - held < GROWTH, statuses


def over_grpc(deployed: Deployed) -> None:
    chance = random.Random(12)
    codes: Counter[str] = Counter()
    held = 0
    address = f"127.0.0.1:{deployed.grpc}"
    with grpc.insecure_channel(address) as channel:
        for number in range(REQUESTS):
            codes[ask(channel, chance)] += 1
            if number % 10 == 0:
                send(address, broken_bytes(chance))
            if number == REQUESTS // 2:
                held = deployed.resident()
        call = channel.unary_unary(f"{SERVICE}/ModelInfer")
        assert call(good_message().SerializeToString(), timeout=60)
    assert codes["INVALID_ARGUMENT"] > REQUESTS / 3
    assert deployed.resident() - held < GROWTH, codes
