"""What Serve's autoscaler is told: the number of requests at a time, short and long ones."""

import pytest

from raystack.serving import load
from raystack.serving.admission import Admission
from raystack.serving.versions import Model
from tests.unit.serving.http.web import version


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(load, "perf_counter", lambda: now[0])
    return now


def test_short_requests_count_by_their_time(clock: list[float]) -> None:
    model = Model("demo", Admission(8, 8), versions={"3": version()})
    looked, statistics = load.Load(model), model.versions["3"].statistics
    for _ in range(1000):
        statistics.answered(1, 0.006, 0.002, 0.003)
    statistics.failed(0.4)
    clock[0] += 2
    assert looked.now() == pytest.approx(3.2)
    clock[0] += 2
    assert looked.now() == 0


def test_long_requests_count_while_they_are_there(clock: list[float]) -> None:
    model = Model("demo", Admission(1, 8), versions={"3": version()})
    looked, statistics = load.Load(model), model.versions["3"].statistics
    assert model.admission.enter()
    for _ in range(3):
        clock[0] += 2
        assert looked.now() == 1
    model.admission.leave()
    statistics.answered(1, 6.0, 0.0, 6.0)
    clock[0] += 2
    assert looked.now() == 1, "and not three in the time in which it ends"
    del model.versions["3"]
    clock[0] += 2
    assert looked.now() == 0
