"""A log of requests and answers, as CloudEvents whose data is the protocol's JSON.

A request that is logged is put into a queue; a thread makes its events and sends them. The types are those
of KServe's logger, and the `id` of a request and its answer is the same, as there; by their `source` they are
two events.
"""

import re
import uuid
from collections.abc import Iterator, Mapping
from random import random
from typing import Any

import numpy as np

from raystack.config.telemetry import Payloads
from raystack.serving import cloudevents
from raystack.serving.background import Background, Waiting
from raystack.serving.cloudevents import Event
from raystack.serving.metrics import Sample
from raystack.serving.observers import Observed
from raystack.serving.protocol import InferRequest
from raystack.serving.protocol.tensors import DATATYPES, NUMPY, Array, to_json
from raystack.serving.sinks import Delivery, Sink

REQUEST, RESPONSE = "org.kubeflow.serving.inference.request", "org.kubeflow.serving.inference.response"
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

PERIOD_S = 0.25
"""Seconds between two looks at the queue."""
MOST = 10_000
"""Most requests that wait, whatever their size."""
AT_ONCE = 100
"""Requests that are made into events at a time."""
STRING_BYTES = 64
"""What a string counts for, of which an array has only the address."""
NAME_LENGTH = 256
"""Longest part of a client's id for a request that is repeated in an attribute."""

_NAMES = {dtype: DATATYPES[name] for name, dtype in NUMPY.items()}


class PayloadLog:
    """Observer that logs requests in a sink."""

    def __init__(self, config: Payloads, sink: Sink) -> None:
        self._config, self._exclude, self._max = config, frozenset(config.exclude), config.max_kb * 1e3
        self._delivery = Delivery(sink, "payload log")
        self._waiting: Waiting[Observed] = Waiting(MOST, int(config.queue_mb * 1e6))
        self._lost = 0
        """Requests that did not fit into the queue, as far as they are counted."""
        self._background = Background("payload log", self._work, PERIOD_S)

    def observed(self, seen: Observed) -> None:
        """Log a request if it is one of the sample, or failed."""
        config = self._config
        if (config.sample < 1 and random() >= config.sample) and not (seen.status >= 400 and config.errors):
            return
        inputs = seen.request.inputs.values() if seen.request is not None else ()
        outputs = seen.outputs.values() if seen.outputs is not None else ()
        self._waiting.put(seen, sum(map(_size, inputs)) + sum(map(_size, outputs)))

    def end(self) -> None:
        """Send what waits, and return at once."""
        self._background.end()

    def close(self) -> None:
        """Send what waits, within some seconds."""
        self._background.close()

    def samples(self) -> Iterator[Sample]:
        """Yield what became of the events."""
        for result, count in (("sent", self._delivery.sent), ("dropped", self._delivery.dropped)):
            yield Sample("counter", "raystack_payload_events_total", {"result": result}, count)

    @property
    def _per_request(self) -> int:
        return 2 if self._config.log == "all" else 1

    def _work(self) -> None:
        lost = self._waiting.dropped - self._lost
        self._lost += lost
        self._delivery.drop(lost * self._per_request)
        last = self._background.ending.is_set()
        while self._delivery.deliver() or last:
            taken = 0
            while taken < AT_ONCE and (seen := self._waiting.take()) is not None:
                self._log(seen)
                taken += 1
            if not taken:
                break
        if last:
            self._delivery.deliver(last=True)
        self._delivery.tell(last=last)

    def _log(self, seen: Observed) -> None:
        try:
            self._delivery.pending.extend(list(self._events(seen)))
        except TypeError as error:
            self._delivery.drop(self._per_request, f"a request is no JSON: {error}")

    def _events(self, seen: Observed) -> Iterator[Event]:
        identity = str(uuid.uuid4())
        source = f"/v2/models/{seen.model}/versions/{seen.version}/infer"
        extensions = {
            "inferenceservicename": seen.model,
            "component": "predictor",
            "endpoint": "default",
            "modelversion": seen.version,
            "run": seen.run,
            "protocol": seen.protocol,
            "requestid": seen.id[:NAME_LENGTH] if seen.id else None,
            "traceparent": seen.trace if seen.trace and TRACEPARENT.fullmatch(seen.trace) else None,
        }
        if seen.request is not None and self._config.log != "response":
            data = self._request(seen.request)
            yield cloudevents.event(REQUEST, f"{source}#request", identity, seen.started, data, extensions)
        if self._config.log != "request":
            extensions["status"] = str(seen.status)
            at = seen.started + seen.total_s
            yield cloudevents.event(
                RESPONSE, f"{source}#response", identity, at, self._response(seen), extensions
            )

    def _request(self, request: InferRequest) -> dict[str, Any]:
        data: dict[str, Any] = {} if request.id is None else {"id": request.id}
        return {**data, "inputs": self._tensors(request.inputs)}

    def _response(self, seen: Observed) -> dict[str, Any]:
        data = {} if seen.id is None else {"id": seen.id}
        if seen.outputs is None:
            return {**data, "error": seen.error or f"status {seen.status}"}
        return {
            **data,
            "model_name": seen.model,
            "model_version": seen.version,
            "outputs": self._tensors(seen.outputs),
        }

    def _tensors(self, arrays: Mapping[str, Array]) -> list[dict[str, Any]]:
        """Return tensors as the protocol has them in JSON, those without values with the reason."""
        room, omitted = self._max, dict.fromkeys(self._exclude & arrays.keys(), "serving.payloads.exclude")
        for name in sorted(arrays.keys() - self._exclude, key=lambda name: _size(arrays[name])):
            room -= _size(arrays[name])
            if room < 0:
                omitted[name] = "serving.payloads.max_kb"
        return [_tensor(name, array, omitted.get(name)) for name, array in arrays.items()]


def _tensor(name: str, array: Array, omitted: str | None) -> dict[str, Any]:
    tensor = {"name": name, "shape": array.shape, "datatype": _NAMES.get(array.dtype, str(array.dtype))}
    if omitted is None:
        try:
            return {**tensor, "data": to_json(array)}
        except UnicodeDecodeError:
            omitted = "no UTF-8"
    return {**tensor, "parameters": {"omitted": omitted}}


def _size(array: Array) -> int:
    """Return the bytes of an array; of strings, a guess that looks at none of them but their lengths."""
    if array.dtype != np.dtype(object):
        return array.nbytes
    return sum(map(len, array.ravel().tolist())) + STRING_BYTES * array.size
