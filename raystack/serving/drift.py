"""Drift: the data that a version is asked about, and its answers, compared with the data of its evaluation.

A part of the requests is looked at, by a thread. An input or output has drifted when the population stability
index of one of its features is above the threshold, and above what two samples of the same data have by
chance.
"""

import logging
import math
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from random import random
from typing import Any

from raystack.checkpoint.statistics import DataStatistics, Feature
from raystack.config.telemetry import Drift as Config
from raystack.serving import cloudevents
from raystack.serving.background import Background, Waiting
from raystack.serving.cloudevents import DRIFT_DETECTED as DETECTED
from raystack.serving.cloudevents import DRIFT_ENDED as ENDED
from raystack.serving.metrics import Sample
from raystack.serving.observers import Observed
from raystack.serving.server import Server
from raystack.serving.sinks import Delivery
from raystack.serving.window import Found, Place, Tally, Window

PERIOD_S = 1.0
"""Seconds between two looks at the requests."""
MOST, BYTES = 500, 32_000_000
"""Most requests, and bytes of their tensors, that are looked at in that time."""
BACK = 0.8
"""Fraction of the threshold below which drift has ended, so that a value at the threshold is one event."""

Name = tuple[str, str]
"""A model and its version."""

logger = logging.getLogger(__name__)


class DriftWatch:
    """Observer that compares, and tells when an input or output has drifted, and when it is back."""

    def __init__(self, config: Config, server: Server, delivery: Delivery | None) -> None:
        self._config, self._server, self._delivery = config, server, delivery
        self._windows: dict[Name, Window] = {}
        self._indices: dict[Name, dict[Place, float]] = {}
        self._waiting: Waiting[Observed] = Waiting(MOST, BYTES)
        self._background = Background("drift", self._work, PERIOD_S)

    def observed(self, seen: Observed) -> None:
        """Look at a request if it is one of the sample."""
        if seen.outputs is None or random() >= self._config.sample or seen.request is None:
            return
        arrays = (*seen.request.inputs.values(), *seen.outputs.values())
        self._waiting.put(seen, sum(array.nbytes for array in arrays))

    def end(self) -> None:
        """End the work, and return at once."""
        self._background.end()

    def close(self) -> None:
        """End the work."""
        self._background.close()

    def samples(self) -> Iterator[Sample]:
        """Yield the index of each input and output of which there are enough samples."""
        for (model, version), indices in list(self._indices.items()):
            for (side, name), index in indices.items():
                labels = {"model": model, "version": version, "side": side, "tensor": name}
                yield Sample("gauge", "raystack_drift", labels, index)

    def _work(self) -> None:
        requests: defaultdict[Name, list[Observed]] = defaultdict(list)
        while (seen := self._waiting.take()) is not None:
            requests[seen.model, seen.version].append(seen)
        self.look(requests, time.monotonic())
        if self._delivery is not None:
            last = self._background.ending.is_set()
            self._delivery.deliver(last=last)
            self._delivery.tell(last=last)

    def look(self, requests: Mapping[Name, Sequence[Observed]], now: float) -> None:
        """Take requests by model and version, and compare at the time `now`."""
        for name, window in list(self._windows.items()):
            if self._expected(name) != window.expects:
                self._leave(name)
        for name, seen in requests.items():
            known = self._windows.get(name) or self._window(name)
            if known is not None:
                known.add(now, seen)
        for name, window in self._windows.items():
            window.slide(now)
            self._compare(name, window)

    def _expected(self, name: Name) -> DataStatistics | None:
        """Return what a version's data is compared with; None if it is not this process that has it."""
        model = self._server.models.get(name[0])
        known = None if model is None else model.versions.get(name[1])
        return known.data if known is not None and known.ready else None

    def _window(self, name: Name) -> Window | None:
        """Return an empty window of a version; None if there are no statistics to compare with."""
        expected = self._expected(name)
        if expected is None:
            return None
        signature = self._server.models[name[0]].versions[name[1]].contract.signature
        self._windows[name] = Window(expected, signature, self._config.window_s)
        return self._windows[name]

    def _leave(self, name: Name) -> None:
        """Forget a version that is not served any more, whose drift ends with it."""
        window, indices = self._windows.pop(name), self._indices.pop(name, {})
        for place in window.drifted:
            self._tell(ENDED, name, window, place, indices.get(place, 0.0), "is not looked at any more")

    def _compare(self, name: Name, window: Window) -> None:
        indices: dict[Place, float] = {}
        if window.samples >= self._config.min_samples:
            for place, found in window.found():
                indices[place] = found.index
                self._judge(name, window, place, found)
        self._indices[name] = indices

    def _judge(self, name: Name, window: Window, place: Place, found: Found) -> None:
        threshold = self._config.threshold
        if place not in window.drifted and (features := found.above(threshold)):
            window.drifted.add(place)
            seen = _features(window.expected[place], found, features)
            self._tell(DETECTED, name, window, place, found.index, "has drifted", seen)
        elif place in window.drifted and not found.above(BACK * threshold):
            window.drifted.remove(place)
            self._tell(ENDED, name, window, place, found.index, "is as it was expected again")

    def _tell(
        self,
        kind: str,
        name: Name,
        window: Window,
        place: Place,
        index: float,
        what: str,
        features: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        (model, version), (side, tensor) = name, place
        logger.warning(
            "model '%s', version '%s': %s '%s' %s: its stability index is %.3g, the threshold %.3g",
            *(model, version, side, tensor, what, index, self._config.threshold),
        )
        if self._delivery is None:
            return
        data = {
            "model": model,
            "version": version,
            side: tensor,
            "index": index,
            "threshold": self._config.threshold,
            "window_s": self._config.window_s,
            "samples": window.samples,
            "features": features,
        }
        source = f"/v2/models/{model}/versions/{version}"
        event = cloudevents.event(kind, source, str(uuid.uuid4()), time.time(), data, {"subject": tensor})
        self._delivery.pending.append(event)


def _features(expected: Sequence[Feature], found: Found, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Describe features that have drifted."""
    return [
        {
            "feature": number if len(expected) > 1 else None,
            "index": found.indices[number],
            "expected": _described(expected[number]),
            "seen": _described_tally(found.tallies[number], expected[number]),
        }
        for number in numbers
    ]


def _described(feature: Feature) -> dict[str, Any]:
    missing = feature.missing / feature.count if feature.count else 0.0
    return {"mean": feature.mean, "min": feature.min, "max": feature.max, "missing": missing}


def _described_tally(tally: Tally, feature: Feature) -> dict[str, Any]:
    count = int(tally.counts.sum())
    missing = 0 if feature.classes is not None else int(tally.counts[-1])
    mean = tally.total / tally.finite if tally.finite else math.nan
    return {
        "mean": mean,
        "min": tally.least,
        "max": tally.greatest,
        "missing": missing / count if count else 0.0,
    }
