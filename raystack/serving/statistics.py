"""Counts of one version since it was loaded, in the form of Triton's statistics extension."""

from collections.abc import Mapping
from time import time
from typing import Any

PHASES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


class Duration:
    """A number of events and their time together."""

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0

    @property
    def ns(self) -> int:
        """Nanoseconds."""
        return int(self.seconds * 1e9)

    def add(self, seconds: float) -> None:
        """Count one event."""
        self.count += 1
        self.seconds += seconds

    def spend(self, seconds: float) -> None:
        """Add time of an event that is counted when it is over."""
        self.seconds += seconds

    def as_dict(self) -> dict[str, int]:
        """Return Triton's fields."""
        return {"count": self.count, "ns": self.ns}


class Statistics:
    """Requests and samples of one version, and where their time went. For use on one event loop."""

    def __init__(self) -> None:
        self.last_s = 0.0
        """When the last request was answered, as `time.time()`; 0 before the first."""
        self.inference_count = 0
        """Samples that were answered."""
        self.lately_s = 0.0
        """Seconds that the last answer took, from the whole request on."""
        self.success, self.fail, self.queue = Duration(), Duration(), Duration()
        self.compute_input, self.compute_infer, self.compute_output = Duration(), Duration(), Duration()

    def answered(self, samples: int, total_s: float, wait_s: float, compute_s: float) -> None:
        """Count a request that was answered, in all phases: Triton's clients compare them at any moment."""
        self.last_s = time()
        self.inference_count += samples
        self.lately_s = wait_s + compute_s
        self.success.add(total_s)
        self.queue.add(wait_s)
        self.compute_infer.add(compute_s)
        self.compute_input.count += 1
        self.compute_output.count += 1

    def failed(self, total_s: float) -> None:
        """Count a request that was not."""
        self.fail.add(total_s)

    def as_dict(self, passes: Mapping[int, Duration]) -> dict[str, Any]:
        """Return Triton's fields, without name and version. `passes` are the engine's, by samples."""
        sizes = sorted(passes)
        return {
            "last_inference": int(self.last_s * 1000),
            "inference_count": self.inference_count,
            "execution_count": sum(passes[size].count for size in sizes),
            "inference_stats": {name: getattr(self, name).as_dict() for name in PHASES},
            "batch_stats": [
                {
                    "batch_size": size,
                    "compute_input": {"count": passes[size].count, "ns": 0},
                    "compute_infer": passes[size].as_dict(),
                    "compute_output": {"count": passes[size].count, "ns": 0},
                }
                for size in sizes
            ],
        }
