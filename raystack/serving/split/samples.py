"""Shares and comparisons of the versions beside a model, for Prometheus."""

from collections.abc import Iterator

from raystack.serving.metrics import Sample
from raystack.serving.split.beside import Beside


def samples(model: str, beside: Beside) -> Iterator[Sample]:
    """Yield the numbers as they are now."""
    for version, weight in beside.weights.items():
        labels = {"model": model, "version": version}
        yield Sample("gauge", "raystack_split_weight", labels, weight)
    for version, counts in beside.copies.items():
        labels = {"model": model, "version": version}
        yield Sample("counter", "raystack_shadow_compared_total", labels, counts.compared)
        yield Sample("counter", "raystack_shadow_dropped_total", labels, counts.dropped)
        for output, count in list(counts.by_output.items()):
            of_output = {**labels, "output": output}
            yield Sample("counter", "raystack_shadow_different_total", of_output, count)
