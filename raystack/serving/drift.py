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

from raystack.checkpoint.statistics import Feature
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

logger = logging.getLogger(__name__)


class DriftWatch:
    """Observer that compares, and tells when an input or output has drifted, and when it is back."""

    def __init__(self, config: Config, server: Server, delivery: Delivery | None) -> None:
        self._config, self._server, self._delivery = config, server, delivery
        self._windows: dict[tuple[str, str], Window | None] = {}
        self._indices: dict[tuple[str, str], dict[Place, float]] = {}
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
        requests: defaultdict[tuple[str, str], list[Observed]] = defaultdict(list)
        while (seen := self._waiting.take()) is not None:
            requests[seen.model, seen.version].append(seen)
        self.look(requests, time.monotonic())
        if self._delivery is not None:
            last = self._background.ending.is_set()
            self._delivery.deliver(last=last)
            self._delivery.tell(last=last)

    def look(self, requests: Mapping[tuple[str, str], Sequence[Observed]], now: float) -> None:
        """Take requests by model and version, and compare at the time `now`."""
        for name, seen in requests.items():
            if name not in self._windows:
                self._windows[name] = self._window(*name)
            window = self._windows[name]
            if window is not None:
                window.add(now, seen)
        for name, window in self._windows.items():
            if window is not None:
                window.slide(now)
                self._compare(name, window)

    def _window(self, model: str, version: str) -> Window | None:
        """Return an empty window of a version; None if there are no statistics to compare with."""
        known = self._server.models[model].versions.get(version)
        if known is None or known.data is None:
            return None
        return Window(known.data, known.contract.signature, self._config.window_s)

    def _compare(self, name: tuple[str, str], window: Window) -> None:
        indices: dict[Place, float] = {}
        if window.samples >= self._config.min_samples:
            for place, found in window.found():
                indices[place] = found.index
                self._judge(name, window, place, found)
        self._indices[name] = indices

    def _judge(self, name: tuple[str, str], window: Window, place: Place, found: Found) -> None:
        threshold = self._config.threshold
        if place not in window.drifted and (features := found.above(threshold)):
            window.drifted.add(place)
            self._tell(DETECTED, name, window, place, found, features)
        elif place in window.drifted and not found.above(BACK * threshold):
            window.drifted.remove(place)
            self._tell(ENDED, name, window, place, found, [])

    def _tell(
        self,
        kind: str,
        name: tuple[str, str],
        window: Window,
        place: Place,
        found: Found,
        features: Sequence[int],
    ) -> None:
        (model, version), (side, tensor) = name, place
        what = "has drifted" if kind == DETECTED else "is as it was expected again"
        logger.warning(
            "model '%s', version '%s': %s '%s' %s: its stability index is %.3g, the threshold %.3g",
            *(model, version, side, tensor, what, found.index, self._config.threshold),
        )
        if self._delivery is None:
            return
        expected = window.expected[place]
        data = {
            "model": model,
            "version": version,
            side: tensor,
            "index": found.index,
            "threshold": self._config.threshold,
            "window_s": self._config.window_s,
            "samples": window.samples,
            "features": [
                {
                    "feature": number if len(expected) > 1 else None,
                    "index": found.indices[number],
                    "expected": _described(expected[number]),
                    "seen": _described_tally(found.tallies[number], expected[number]),
                }
                for number in features
            ],
        }
        source = f"/v2/models/{model}/versions/{version}"
        event = cloudevents.event(kind, source, str(uuid.uuid4()), time.time(), data, {"subject": tensor})
        self._delivery.pending.append(event)


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
