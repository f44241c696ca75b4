"""Where a forward pass runs follows from what passes took."""

from raystack.serving.pace import KEPT, Pace


def known(**seconds: float) -> Pace:
    pace = Pace()
    for name, each in seconds.items():
        pace.ran(int(name.removeprefix("of_")), each)
    return pace


def test_nothing_known_is_a_thread() -> None:
    assert not Pace().inline(1)


def test_short_ones_stay_on_the_event_loop() -> None:
    assert known(of_1=0.0001).inline(1)


def test_a_pass_that_the_machine_interrupted_changes_nothing() -> None:
    pace = known(of_1=0.0001)
    for _ in range(KEPT - 1):
        pace.ran(1, 0.01)
        assert pace.inline(1)
    pace.ran(1, 0.01)
    assert not pace.inline(1)


def test_a_very_long_one_is_the_last() -> None:
    pace = known(of_1=0.0001)
    pace.ran(1, 0.3)
    assert not pace.inline(1)


def test_a_size_that_is_new_is_tried_where_it_cannot_be_long() -> None:
    assert known(of_1=0.0001).inline(32)
    assert not known(of_1=0.001).inline(32)
    assert known(of_64=0.001).inline(2)


def test_a_pass_that_waited_for_the_interpreter_is_tried_on_the_event_loop() -> None:
    pace = Pace()
    pace.ran_aside(0.025, cpu_s=0.0002, loop_s=0.0245)
    assert pace.inline(1)
    pace.ran(1, 0.0001)
    assert pace.inline(1)


def test_a_pass_that_sleeps_or_computes_is_not() -> None:
    pace = Pace()
    pace.ran_aside(0.025, cpu_s=0.0002, loop_s=0.001)
    assert not pace.inline(1)
    pace.ran_aside(0.025, cpu_s=0.024, loop_s=0.02)
    assert not pace.inline(1)


def test_tries_that_fail_become_rare() -> None:
    pace, tries = Pace(), 0
    for _ in range(100):
        pace.ran_aside(0.025, cpu_s=0.0002, loop_s=0.0245)
        if pace.inline(1):
            tries += 1
            pace.ran(1, 0.025)
    assert 3 <= tries <= 5
