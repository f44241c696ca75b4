"""The payload log: what the events say, what is left out, and that a sink gets them or they are counted."""

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from observing import Noted, answered, failed, noting, until

from raystack.config.telemetry import Payloads
from raystack.serving import payloads, sinks
from raystack.serving.payloads import REQUEST, RESPONSE, PayloadLog
from raystack.serving.sinks import FileSink, HttpSink

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

Log = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def noted() -> Iterator[Noted]:
    with noting() as found:
        yield found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits between attempts."""
    monkeypatch.setattr(sinks, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(payloads, "PERIOD_S", 0.01)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Logs requests into a file, and returns its events."""

    def write(*seen: Any, **config: Any) -> list[dict[str, Any]]:
        file = tmp_path / "log.jsonl"
        made = PayloadLog(Payloads(to=str(tmp_path), **config), FileSink(file, 10**6, 2))
        for each in seen:
            made.observed(each)
        made.close()
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    return write


def test_a_request_and_its_answer_are_two_events_of_one_id(log: Log) -> None:
    request, answer = log(answered([[1.0, np.nan]], trace=TRACE))
    assert (request["specversion"], request["type"], answer["type"]) == ("1.0", REQUEST, RESPONSE)
    assert request["id"] == answer["id"]
    assert request["source"] != answer["source"], "source and id together are an event's own"
    assert (request["time"], answer["time"]) == ("2023-11-14T22:13:20.250Z", "2023-11-14T22:13:20.258Z")
    assert request["data"] == {
        "id": "r1",
        "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, None]}],
    }
    assert answer["data"]["outputs"][1] == {"name": "label", "shape": [1], "datatype": "INT64", "data": [0]}
    assert (answer["data"]["model_name"], answer["data"]["model_version"]) == ("demo", "3")
    assert (request["inferenceservicename"], request["modelversion"]) == ("demo", "3")
    assert request["run"] == "digits-1"
    assert (request["requestid"], request["traceparent"], answer["status"]) == ("r1", TRACE, "200")
    names = [*request, *answer]
    assert all(name.isalnum() and name == name.lower() for name in names), "what CloudEvents allows as a name"


def test_a_failure_is_logged_with_what_the_client_was_told_whatever_the_sample_is(log: Log) -> None:
    (answer,) = log(answered(), failed(400, trace="nonsense"), sample=0.0)
    assert answer["data"] == {"error": "input 'z': there is none of this name"}
    assert (answer["type"], answer["status"]) == (RESPONSE, "400")
    assert "traceparent" not in answer


def test_failures_alone_may_be_left_out_and_so_may_requests(log: Log) -> None:
    assert log(answered(), failed(), sample=0.0, errors=False) == []
    assert [event["type"] for event in log(answered(), log="response")] == [RESPONSE]


def test_a_request_only_log_has_no_answers(log: Log) -> None:
    assert [event["type"] for event in log(answered(), failed(), log="request")] == [REQUEST]


def test_the_sample_is_a_fraction_of_the_requests(log: Log) -> None:
    found = log(*[answered()] * 1000, sample=0.1, log="request")
    assert 40 < len(found) < 180


def test_excluded_tensors_have_no_values(log: Log) -> None:
    request, answer = log(answered(), exclude=["x", "label", "other"])
    omitted = {"omitted": "serving.payloads.exclude"}
    assert request["data"]["inputs"] == [
        {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": omitted}
    ]
    assert [output.get("parameters") for output in answer["data"]["outputs"]] == [None, omitted]


def test_the_largest_tensors_of_a_payload_above_the_limit_have_no_values(log: Log) -> None:
    request, answer = log(answered(np.zeros((300, 2))), max_kb=2.0)
    assert request["data"]["inputs"][0]["parameters"] == {"omitted": "serving.payloads.max_kb"}
    assert ["data" in output for output in answer["data"]["outputs"]] == [True, False], (
        "y 1200 B, label 2400 B"
    )


def test_every_datatype_is_json(log: Log) -> None:
    import ml_dtypes

    arrays = {
        "half": np.array([[0.5]], np.float16),
        "brain": np.array([[1.5]], ml_dtypes.bfloat16),
        "true": np.array([[True]]),
        "big": np.array([[2**64 - 1]], np.uint64),
        "text": np.array([["ä".encode()]], object),
        "bytes": np.array([[b"\xff"]], object),
    }
    (answer,) = log(answered(outputs=arrays), log="response")
    found = {output["name"]: output for output in answer["data"]["outputs"]}
    assert {name: output["datatype"] for name, output in found.items()} == {
        "half": "FP16",
        "brain": "BF16",
        "true": "BOOL",
        "big": "UINT64",
        "text": "BYTES",
        "bytes": "BYTES",
    }
    values = [found[name]["data"][0] for name in ("half", "brain", "true", "big", "text")]
    assert values == [0.5, 1.5, True, 2**64 - 1, "ä"]
    assert found["bytes"]["parameters"] == {"omitted": "no UTF-8"}


def test_a_full_file_is_put_aside_and_the_oldest_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "new" / "log.jsonl"
    made = PayloadLog(Payloads(to=str(tmp_path), log="request"), FileSink(file, 2000, 2))
    for number in range(40):
        made.observed(answered(id=f"r{number}"))
    made.close()
    assert sorted(path.name for path in file.parent.iterdir()) == ["log.jsonl", "log.jsonl.1", "log.jsonl.2"]
    assert all(path.stat().st_size <= 2000 for path in file.parent.iterdir())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    kept = [
        json.loads(line)["requestid"]
        for name in ("log.jsonl.2", "log.jsonl.1", "log.jsonl")
        for line in (file.parent / name).read_text().splitlines()
    ]
    assert kept == [f"r{number}" for number in range(40 - len(kept), 40)], "in order, without a gap"


@pytest.mark.parametrize("mode", ["batch", "structured", "binary"])
def test_a_sink_that_fails_at_first_gets_every_event_once(noted: Noted, quick: None, mode: Any) -> None:
    noted.statuses = [503, 500, 429]
    made = PayloadLog(Payloads(to=noted.url, mode=mode), HttpSink(noted.url, mode, "s3cret"))
    for number in range(5):
        made.observed(answered(id=f"r{number} ä"))
    until(lambda: dict(_counts(made))["sent"] == 10)
    made.close()
    assert noted.attempts == len(noted.posts) + 3
    assert {post.headers["authorization"] for post in noted.posts} == {"Bearer s3cret"}
    events = [event for post in noted.posts for event in _received(post.headers, post.body)]
    assert [event["requestid"] for event in events] == [f"r{number // 2} ä" for number in range(10)]
    assert events[0]["data"]["inputs"][0]["data"] == [1.0, 2.0]
    assert _counts(made) == {"sent": 10, "dropped": 0}


def _received(headers: Any, body: bytes) -> list[dict[str, Any]]:
    """Events out of a request, as CloudEvents' HTTP binding says."""
    from urllib.parse import unquote

    kind = headers["content-type"]
    if kind == "application/cloudevents-batch+json":
        found: list[dict[str, Any]] = json.loads(body)
        return found
    if kind == "application/cloudevents+json":
        return [json.loads(body)]
    assert (kind, headers["ce-specversion"]) == ("application/json", "1.0")
    names = {name[3:]: unquote(value) for name, value in headers.items() if name.startswith("ce-")}
    return [{**names, "data": json.loads(body)}]


def _counts(log: PayloadLog) -> dict[str, float]:
    return {sample.labels["result"]: sample.value for sample in log.samples()}


def test_what_a_sink_refuses_is_dropped_and_told(
    noted: Noted, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    noted.statuses = [400]
    made = PayloadLog(Payloads(to=noted.url), HttpSink(noted.url, "batch", None))
    made.observed(answered())
    until(lambda: _counts(made)["dropped"])
    made.observed(answered())
    until(lambda: _counts(made)["sent"])
    made.close()
    assert _counts(made) == {"sent": 2, "dropped": 2}
    (message,) = [record.message for record in caplog.records]
    assert message == (f"payload log: 2 events were dropped, 2 in all: {noted.url}: status 400")


def test_a_sink_that_is_away_costs_a_bounded_queue_and_one_message(
    quick: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "ANSWER_S", 0.2)
    with noting() as gone:
        url = gone.url
    rows = np.zeros((100, 2))  # 800 bytes, and 1200 of outputs
    made = PayloadLog(Payloads(to=url, queue_mb=0.01), HttpSink(url, "batch", None))
    for _ in range(200):
        made.observed(answered(rows))
    made.close()
    counts = _counts(made)
    assert counts == {"sent": 0, "dropped": 400}
    waits, *dropped = [record.message for record in caplog.records]
    assert waits.startswith(f"payload log: {url}: ")
    assert waits.endswith("; events wait")
    assert 1 <= len(dropped) <= 2, "the first of a minute, and one at the end"
    assert f"400 in all: {url}: " in dropped[-1]


def test_an_observed_request_waits_for_no_sink(quick: None) -> None:
    asked, answers = Event(), Event()

    class Slow:
        def send(self, events: Any) -> None:
            asked.set()
            assert answers.wait(60)
            events.clear()

    made = PayloadLog(Payloads(to="/unused"), Slow())
    made.observed(answered())
    assert asked.wait(20)
    for _ in range(1000):
        made.observed(answered())
    assert not answers.is_set(), "1000 requests were observed while the sink took its time"
    answers.set()
    until(lambda: _counts(made)["sent"] == 2002)
    made.close()


def test_a_folder_that_cannot_be_written_is_told_of(
    tmp_path: Path, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "log").write_text("a file")
    made = PayloadLog(Payloads(to=str(tmp_path)), FileSink(tmp_path / "log" / "demo.jsonl", 10**6, 1))
    made.observed(answered())
    until(lambda: caplog.records)
    (tmp_path / "log").unlink()
    until(lambda: _counts(made)["sent"])
    made.close()
    (message,) = [record.message for record in caplog.records]
    assert message.startswith("payload log: ")
    assert "File exists; events wait" in message or "Not a directory; events wait" in message


def test_what_is_no_json_is_dropped_and_holds_nothing_up(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    events = log(answered(), failed(error="\ud800"), answered())
    assert [event["type"] for event in events] == [REQUEST, RESPONSE] * 2
    (message,) = [record.message for record in caplog.records]
    assert "a request is no JSON: str is not valid UTF-8" in message
