"""Counts of one version since it was loaded, in the form of Triton's statistics extension."""

import time
from dataclasses import dataclass, field
from typing import Any

_PHASES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


@dataclass
class Duration:
    """A number of events and their time together."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Count one event."""
        self.count += 1
        self.ns += int(seconds * 1e9)


@dataclass
class Statistics:
    """Requests, samples and passes of one version, and where their time went. For use on one event loop."""

    last_inference: int = 0
    """Milliseconds since the epoch."""
    inference_count: int = 0
    """Samples that were answered."""
    execution_count: int = 0
    """Forward passes."""
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    batches: dict[int, Duration] = field(default_factory=dict)
    """Forward passes by their number of samples."""

    def answered(self, samples: int, total_s: float, wait_s: float, compute_s: float) -> None:
        """Count a request that was answered."""
        self.last_inference = time.time_ns() // 1_000_000
        self.inference_count += samples
        self.success.add(total_s)
        self.queue.add(wait_s)
        self.compute_infer.add(compute_s)

    def failed(self, total_s: float) -> None:
        """Count a request that was not."""
        self.fail.add(total_s)

    def ran(self, samples: int, seconds: float) -> None:
        """Count a forward pass."""
        self.execution_count += 1
        self.batches.setdefault(samples, Duration()).add(seconds)

    def as_dict(self) -> dict[str, Any]:
        """Return Triton's fields, without name and version."""
        return {
            "last_inference": self.last_inference,
            "inference_count": self.inference_count,
            "execution_count": self.execution_count,
            "inference_stats": {name: vars(getattr(self, name)) for name in _PHASES},
            "batch_stats": [
                {"batch_size": size, "compute_infer": vars(self.batches[size])}
                for size in sorted(self.batches)
            ],
        }
