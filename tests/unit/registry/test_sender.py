"""What is put into the queue of a run's record, and what is not."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from raystack.registry.command import End, Metrics, Run
from raystack.registry.sender import Sender


def test_a_sample_of_the_machine_is_never_behind_the_end(tmp_path: Path) -> None:
    run = Run(tracking_uri="x", experiment="e", run_id="r", artifacts=None, tags={}, started_ms=0)
    sender = Sender(run, tmp_path, header=None, flush_s=1.0, sample=True, warn=print)
    store: Any = SimpleNamespace(probe=lambda: SimpleNamespace(sample=lambda: {"system/cpu": 1.0}))
    opened: Any = SimpleNamespace(started_ms=0)

    def sample() -> None:
        sender._next_sample = 0.0
        sender._sample(store, opened)

    def waiting() -> list[type]:
        return [type(each.command) for each in sender._outbox]

    sample()  # makes the probe
    sample()
    assert waiting() == [Metrics]
    sender.put(End(status="FINISHED", ended_ms=1))
    sample()
    sender.put(Metrics(points=(("train/loss", 1.0, 2, 2),)))
    assert waiting() == [Metrics, End]
