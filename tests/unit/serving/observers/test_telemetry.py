"""All observers of a replica at once, by its config, behind the real endpoints."""

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from observing import SIGNATURE, noting
from observing import server as a_server
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from raystack.checkpoint.statistics import Collector, DataStatistics
from raystack.config.serving import Serving
from raystack.errors import ConfigError, Problem, ServingError
from raystack.serving import background
from raystack.serving.background import Background
from raystack.serving.endpoint import Endpoint
from raystack.serving.engine import ModelEngine
from raystack.serving.grpc.services import add
from raystack.serving.observers import Observed
from raystack.serving.protocol import Contract
from raystack.serving.protocol.tensors import Array
from raystack.serving.server import Admission, Model, Server, Version
from raystack.serving.telemetry import end, observers

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


def model(inputs: Mapping[str, Array]) -> dict[str, Array]:
    if (inputs["x"] == -1).any():
        raise ServingError(Problem("task", rule="the task raised: ValueError: a bad sample"))
    x = inputs["x"]
    return {"y": x.sum(1, keepdims=True, dtype=np.float32), "label": np.zeros(len(x), np.int64)}


def statistics() -> DataStatistics:
    collector = Collector(SIGNATURE.inputs)
    collector.add({"x": np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32)})
    return DataStatistics("eval_data", 1000, collector.describe(), {})


async def ask(server: Server, x: Any) -> list[int]:
    """Ask by REST, rightly and wrongly, and by gRPC; return the statuses of REST."""
    transport = httpx.ASGITransport(Endpoint(server))
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=PARENT) as client:
        bodies = [
            {
                "id": "rest",
                "inputs": [{"name": "x", "datatype": "FP32", "shape": list(np.shape(x)), "data": x}],
            },
            {"inputs": [{"name": "z", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]},
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [-1, 2]}]},
        ]
        answers = [await client.post("/v2/models/demo/infer", json=body) for body in bodies]
    await ask_by_grpc(server, x)
    return [answer.status_code for answer in answers]


async def ask_by_grpc(server: Server, x: Any) -> None:
    listening = grpc.aio.server()
    add(listening, server)
    port = listening.add_insecure_port("127.0.0.1:0")
    await listening.start()
    async with InferenceServerClient(f"127.0.0.1:{port}") as client:
        tensor = InferInput("x", np.shape(x), "FP32")
        tensor.set_data_from_numpy(np.array(x, np.float32))
        await client.infer("demo", [tensor], request_id="grpc", headers=PARENT)
    await listening.stop(None)


def test_every_request_is_seen_by_all_of_them(tmp_path: Path) -> None:
    with noting() as collector:
        serving = Serving.model_validate(
            {
                "name": "demo",
                "telemetry": {"metrics": False, "otlp": collector.url},
                "payloads": {"to": str(tmp_path)},
                "drift": {"sample": 1.0, "min_samples": 50},
            }
        )
        server = Server()
        server.add(Model("demo", Admission(4, 4)))
        engine = ModelEngine(SIGNATURE, model, 64, 0.001)
        server.put(Version(Contract("demo", "3", SIGNATURE), engine, "ready", data=statistics()))
        watchers = observers(serving, server, "replica#1")
        server.observers = list(watchers)
        assert asyncio.run(ask(server, [[5.0, 6.0]] * 50)) == [200, 400, 500]
        end(watchers)

    events = [json.loads(line) for line in (tmp_path / "demo-replica-1.jsonl").read_text().splitlines()]
    answers = [event for event in events if event["type"].endswith(".response")]
    assert [(event["protocol"], event["status"]) for event in answers] == [
        ("rest", "200"),
        ("rest", "400"),
        ("rest", "500"),
        ("grpc", "200"),
    ]
    assert [event.get("requestid") for event in answers] == ["rest", None, None, "grpc"]
    assert "'z'" in answers[1]["data"]["error"]
    assert "a bad sample" in answers[2]["data"]["error"]
    assert all(event["traceparent"] == PARENT["traceparent"] for event in events)

    requests = [ExportTraceServiceRequest.FromString(post.body) for post in collector.posts]
    spans = [span for each in requests for span in each.resource_spans[0].scope_spans[0].spans]
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert sorted(span.name for span in spans) == [*["compute"] * 2, *["infer demo"] * 4, *["queue"] * 2]

    drift = [json.loads(line) for line in (tmp_path / "demo-replica-1.drift.jsonl").read_text().splitlines()]
    assert [(event["type"], event["subject"]) for event in drift] == [("io.raystack.drift.detected", "x")]


def test_nothing_is_watched_where_nothing_is_asked_for() -> None:
    serving = Serving.model_validate(
        {"name": "demo", "telemetry": {"metrics": False}, "drift": {"enabled": False}}
    )
    assert observers(serving, Server(), "1") == []


def test_a_missing_secret_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SINK_TOKEN", raising=False)
    payloads = {"to": "http://127.0.0.1:1/", "token": "secret:env:SINK_TOKEN"}
    with pytest.raises(ConfigError, match="SINK_TOKEN"):
        observers(Serving.model_validate({"name": "demo", "payloads": payloads}), Server(), "1")


def test_an_excluded_name_that_is_none_is_refused_because_its_values_would_be_logged(tmp_path: Path) -> None:
    payloads = {"to": str(tmp_path), "exclude": ["x", "labels"]}
    serving = Serving.model_validate({"name": "demo", "payloads": payloads})
    with pytest.raises(ConfigError, match=r"exclude: .*\(got labels\); did you mean 'label'\?"):
        observers(serving, a_server(), "1")


def test_observers_whose_sinks_hang_end_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "END_S", 1.0)
    released = Event()
    hanging = [_Hanging(Background(name, released.wait, 3600.0)) for name in ("one", "two", "three")]
    began = time.monotonic()
    end(hanging)
    assert 1.0 <= time.monotonic() - began < 2.9
    released.set()


class _Hanging:
    def __init__(self, work: Background) -> None:
        self.end, self.close = work.end, work.close

    def observed(self, seen: Observed) -> None:
        pass
