"""Drift: equal data has none, shifted data has, and one event tells of each change."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from observing import SIGNATURE, answered, server, until

from raystack.checkpoint.statistics import Collector, DataStatistics
from raystack.config.telemetry import Drift
from raystack.serving import drift
from raystack.serving.cloudevents import DRIFT_DETECTED as DETECTED
from raystack.serving.cloudevents import DRIFT_ENDED as ENDED
from raystack.serving.drift import DriftWatch
from raystack.serving.observers import Observed
from raystack.serving.protocol import Contract
from raystack.serving.sinks import Delivery, FileSink
from raystack.serving.stability import by_chance, merged, stability_index
from raystack.serving.versions import Version

NAME = ("demo", "3")
RANDOM = np.random.default_rng(7)


def requests(
    count: int, shift: float = 0.0, label: int | None = None, missing: float = 0.0
) -> list[Observed]:
    """Requests of 10 normally distributed rows, whose second column may be shifted or missing."""
    made = []
    for _ in range(count):
        rows = RANDOM.normal((0.0, shift), size=(10, 2))
        rows[RANDOM.random(10) < missing, 1] = np.nan
        made.append(answered(rows, RANDOM.integers(0, 4, 10) if label is None else np.full(10, label)))
    return made


def statistics(samples: int = 4000) -> DataStatistics:
    """Those of data without a shift."""
    inputs, outputs = Collector(SIGNATURE.inputs), Collector(SIGNATURE.outputs)
    for seen in requests(samples // 10):
        assert seen.request is not None
        assert seen.outputs is not None
        inputs.add(seen.request.inputs)
        outputs.add(seen.outputs)
    return DataStatistics("eval_data", samples, inputs.describe(), outputs.describe())


DATA = statistics()


@pytest.fixture
def events(tmp_path: Path) -> Path:
    return tmp_path / "drift.jsonl"


@pytest.fixture
def watch(events: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DriftWatch]:
    """A watch over a window of 100 s whose time is the test's."""
    monkeypatch.setattr(drift, "PERIOD_S", 3600.0)
    delivery = Delivery(FileSink(events, 10**6, 1), "drift")
    made = DriftWatch(Drift(window_s=100.0, sample=1.0), server(DATA), delivery)
    yield made
    made.close()


def indices(watch: DriftWatch) -> dict[tuple[str, str], float]:
    return {(sample.labels["side"], sample.labels["tensor"]): sample.value for sample in watch.samples()}


def told(watch: DriftWatch, events: Path) -> list[dict[str, Any]]:
    """Events up to the end."""
    watch.close()
    return [json.loads(line) for line in events.read_text().splitlines()] if events.exists() else []


def test_equal_data_has_no_drift(watch: DriftWatch, events: Path) -> None:
    for now in range(0, 300, 5):
        watch.look({NAME: requests(10)}, float(now))
    assert indices(watch).keys() == {("input", "x"), ("output", "y"), ("output", "label")}
    assert max(indices(watch).values()) < 0.1
    assert told(watch, events) == []


def test_shifted_data_is_told_once_and_once_when_it_is_back(
    watch: DriftWatch, events: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for now in range(0, 200, 5):
        watch.look({NAME: requests(10, shift=1.5 if now < 100 else 0.0)}, float(now))
    found = told(watch, events)
    changes = [(event["type"], event["subject"]) for event in found]
    assert changes[:2] == [(DETECTED, "x"), (DETECTED, "y")]
    assert sorted(changes[2:]) == [(ENDED, "x"), (ENDED, "y")]
    data = found[0]["data"]
    assert (data["model"], data["version"], data["input"]) == ("demo", "3", "x")
    (feature,) = data["features"]
    assert feature["feature"] == 1, "the column that is shifted"
    assert feature["index"] == data["index"] > data["threshold"] == 0.25
    assert feature["seen"]["mean"] - feature["expected"]["mean"] == pytest.approx(1.5, abs=0.2)
    assert "input 'x' has drifted: its stability index is" in caplog.records[0].message
    assert "is as it was expected again" in caplog.records[-1].message


def test_answers_of_one_class_are_drift(watch: DriftWatch, events: Path) -> None:
    watch.look({NAME: requests(60, label=2)}, 0.0)
    (found,) = told(watch, events)
    assert found["data"]["output"] == "label"
    assert found["data"]["features"][0]["feature"] is None, "a tensor of one feature"


def test_missing_values_are_drift(watch: DriftWatch, events: Path) -> None:
    watch.look({NAME: requests(60, missing=0.3)}, 0.0)
    (inputs,) = [event for event in told(watch, events) if event["subject"] == "x"]
    assert inputs["data"]["features"][0]["seen"]["missing"] == pytest.approx(0.3, abs=0.1)
    assert inputs["data"]["features"][0]["expected"]["missing"] == 0


def test_a_window_of_few_samples_is_not_judged(watch: DriftWatch, events: Path) -> None:
    watch.look({NAME: requests(49, shift=9.0)}, 0.0)
    assert indices(watch) == {}
    watch.look({NAME: requests(1, shift=9.0)}, 99.0)
    assert indices(watch)["input", "x"] > 1
    watch.look({}, 101.0)
    assert indices(watch) == {}, "the first 490 are out of the window"


def test_a_version_without_statistics_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "PERIOD_S", 0.01)
    watch = DriftWatch(Drift(sample=1.0, min_samples=1), server(None), None)
    for seen in requests(5, shift=9.0):
        watch.observed(seen)
    watch.close()
    assert list(watch.samples()) == []


def test_a_version_that_was_beside_another_is_watched_when_it_takes_its_place(
    watch: DriftWatch, events: Path
) -> None:
    served, model = watch._server, watch._server.models["demo"]
    canary = [seen._replace(version="4") for seen in requests(60, shift=3.0)]
    model.others["4"] = Version(Contract("demo", "4", SIGNATURE), state="ready")  # of another process
    watch.look({NAME: requests(60, shift=3.0), ("demo", "4"): canary}, 0.0)
    served.put(Version(Contract("demo", "4", SIGNATURE), state="ready", data=DATA))
    model.versions["3"].retire()
    watch.look({("demo", "4"): canary}, 1.0)
    changes = [(event["type"], event["data"]["version"], event["subject"]) for event in told(watch, events)]
    drifted = [(DETECTED, "3", "x"), (DETECTED, "3", "y")]
    over = [(ENDED, "3", "x"), (ENDED, "3", "y")]
    assert changes[:2] == drifted
    assert sorted(changes[2:4]) == over, "what is not served any more has no drift"
    assert changes[4:] == [(DETECTED, "4", "x"), (DETECTED, "4", "y")]


def test_requests_are_taken_beside_the_loop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(drift, "PERIOD_S", 0.01)
    watch = DriftWatch(Drift(sample=1.0, min_samples=100), server(DATA), None)
    for seen in requests(20, shift=3.0):
        watch.observed(seen)
    until(lambda: indices(watch))
    watch.close()
    assert indices(watch)["input", "x"] > 1
    assert any("input 'x' has drifted" in record.message for record in caplog.records)


def test_small_statistics_raise_no_drift_by_chance() -> None:
    """Of 100 models with statistics of 40 samples, asked 500 of the same kind, about none drifts."""
    false = 0
    for _ in range(100):
        watch = DriftWatch(Drift(sample=1.0), server(statistics(40)), None)
        watch.look({NAME: requests(50)}, 0.0)
        window = watch._windows[NAME]
        assert window is not None
        false += bool(window.drifted)
        watch.close()
    assert false <= 3


def test_the_index_is_the_formula_of_its_sources() -> None:
    expected, seen = np.array([50, 50]), np.array([80, 20])
    p, q = np.array([0.5, 0.5]), np.array([80.5, 20.5]) / 101
    by_hand = sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))
    assert stability_index(expected, seen) == pytest.approx(by_hand)
    assert stability_index(expected, expected * 7) == pytest.approx(0, abs=1e-4)
    assert stability_index(np.array([100, 0]), np.array([50, 50])) > 0.25, "a bin that was empty"


def test_chance_is_rarely_exceeded_by_equal_data() -> None:
    bins = np.full(11, 1 / 11)
    pairs = [(RANDOM.multinomial(2000, bins), RANDOM.multinomial(500, bins)) for _ in range(2000)]
    exceeded = sum(stability_index(*pair) > by_chance(11, 2000, 500) for pair in pairs)
    assert exceeded <= 3
    assert sum(stability_index(*pair) > by_chance(11, 2000, 500) / 2 for pair in pairs) > 20, (
        "nor is it far off"
    )


def test_bins_of_few_values_are_taken_together() -> None:
    expected = np.arange(100)
    first, second = merged(expected, expected[::-1])
    assert len(first) == 31
    assert first.sum() == second.sum() == expected.sum()
    assert first[:3].tolist() == [99, 98, 97]
    assert second[:3].tolist() == [0, 1, 2]
