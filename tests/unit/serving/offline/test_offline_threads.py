"""No thread reads on when an interrupt has ended what it reads for."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from raystack.serving.offline.threads import ReadingPool


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Has an interrupt meet the start of the next thread, which begins some seconds later."""
    start, begin = threading.Thread.start, threading.Thread.run

    def arm(seconds: float) -> None:
        def late(thread: threading.Thread) -> None:
            time.sleep(seconds)
            begin(thread)

        def met(thread: threading.Thread) -> None:
            start(thread)
            raise KeyboardInterrupt

        monkeypatch.setattr(threading.Thread, "run", late)
        monkeypatch.setattr(threading.Thread, "start", met)

    return arm


def ended(reading: Callable[[], Any]) -> None:
    with pytest.raises(KeyboardInterrupt), ReadingPool(1) as pool:
        pool.submit(reading)


def test_a_thread_that_begins_late_reads_nothing(interrupted: Callable[[float], None]) -> None:
    read: list[int] = []
    before = set(threading.enumerate())
    interrupted(0.1)
    ended(lambda: read.append(1))
    (left,) = set(threading.enumerate()) - before
    left.join(20)
    assert (read, left.is_alive()) == ([], False)


def test_a_thread_that_reads_is_waited_for(
    interrupted: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    begun = threading.Event()

    def reading() -> None:
        begun.set()
        time.sleep(0.1)
        read.append(1)

    submit = ReadingPool.submit

    def submitted(pool: ReadingPool, *arguments: Any) -> Any:
        try:
            return submit(pool, *arguments)
        finally:
            assert begun.wait(20)

    monkeypatch.setattr(ReadingPool, "submit", submitted)
    interrupted(0.0)
    ended(reading)
    assert read == [1]


def test_results_and_errors_are_the_executors() -> None:
    with ReadingPool(2) as pool:
        assert list(pool.map(lambda number: number + 1, range(5))) == [1, 2, 3, 4, 5]
        later = pool.map(lambda number: time.sleep(0.01), range(5))
        failed = pool.submit(int, "x")
        with pytest.raises(ValueError, match="invalid literal"):
            failed.result()
    assert len(list(later)) == 5
