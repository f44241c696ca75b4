"""A rollout from its start to its end, on a service that is none; killed wherever it can be."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pretended import NEW, OLD, STEPS, Behaviour, Noisy, Service, begun, control, plan, run

from raystack.errors import Problem, ServingError
from raystack.plan import ServePlan
from raystack.rollout.state import State
from raystack.rollout.store import Verb
from raystack.storage import Storage

SHORT = ({"weight": 0.05, "min_s": 3.0, "min_requests": 5}, {"weight": 1.0, "min_s": 1.0})


def ended(
    folder: Path, service: Service, steps: Sequence[Mapping[str, float]] = STEPS, **analysis: Any
) -> State:
    planned = plan(folder, steps, **analysis)
    states = list(run(control(planned, begun(planned, service), service)))
    return states[-1]


def test_a_good_version_takes_the_place_of_the_other_and_gets_the_alias(tmp_path: Path) -> None:
    service, planned = Service(), plan(tmp_path)
    store = begun(planned, service)
    states = list(run(control(planned, store, service)))
    assert states[-1].status == "finished"
    assert (service.stable, service.weight, service.loaded, service.alias) == (NEW, None, {NEW}, [NEW])
    assert list(dict.fromkeys(state.weight for state in states)) == [0.05, 0.5, 1.0]
    whats = [decision.what for decision in store.decisions()]
    assert whats == ["start", "step", "step", "promote", "end"]
    # No step is shorter than it may be, in requests and in seconds.
    first, second = store.decisions()[1:3]
    assert first.numbers["candidate"]["requests"] >= 200
    assert second.at - first.at >= 10


@pytest.mark.parametrize(
    ("faulty", "cause", "analysis"),
    [
        ({"errors": 500}, "errors", {}),
        ({"slow": 400}, "latency", {}),
        ({"different": 300}, "difference", {"difference": {}}),
    ],
)
def test_a_faulty_version_goes_back_within_ten_seconds(
    faulty: dict[str, int], cause: str, analysis: dict[str, Any], tmp_path: Path
) -> None:
    service = Service(**faulty)
    last = ended(tmp_path, service, **analysis)
    assert last.status == "rolled back"
    assert last.cause.startswith(cause)
    assert 0 < (last.reaction_s or 0) < 10
    assert (service.stable, service.weight, service.loaded, service.alias) == (OLD, None, {OLD}, [])
    assert service.back == [NEW]
    assert last.step == 0


def test_copies_that_fail_are_among_those_that_were_tried(tmp_path: Path) -> None:
    last = ended(tmp_path, Service(errors=500), difference={})
    assert last.status == "rolled back"
    assert last.new.errors / last.new.tried == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("seed", range(20))
def test_an_equal_version_is_not_sent_back_by_noise(seed: int, tmp_path: Path) -> None:
    assert ended(tmp_path, Noisy(seed), difference={}).status == "finished"


def test_a_version_that_is_suspected_gets_no_larger_share(tmp_path: Path) -> None:
    service, steps = Service(errors=300), [{"weight": 0.5, "min_s": 1.0}, {"weight": 1.0}]
    last = ended(tmp_path, service, steps)
    assert (last.status, last.step) == ("rolled back", 0)


def test_errors_of_both_versions_are_not_the_new_ones_fault(tmp_path: Path) -> None:
    service = Service(errors=40)
    service.behaviour[OLD].errors = 40
    assert ended(tmp_path, service).status == "finished"


def test_errors_that_begin_when_nothing_is_left_to_compare_with_are_found(tmp_path: Path) -> None:
    service, planned = Service(), plan(tmp_path)
    for state in run(control(planned, begun(planned, service), service)):
        if state.weight == 1.0:
            service.behaviour[NEW].errors = 400
    assert (state.status, service.stable) == ("rolled back", OLD)


def test_counters_that_begin_again_are_not_taken_for_less(tmp_path: Path) -> None:
    service, planned = Service(), plan(tmp_path)
    states = []
    for state in run(control(planned, begun(planned, service), service)):
        states.append(state)
        if len(states) == 20:
            service.begin_again()
    assert state.status == "finished"
    assert state.new.requests + state.old.requests == 100 * (service.calls.count("seen") - 1)


class Killed(BaseException):
    """The end of the process."""


@pytest.mark.parametrize(("faulty", "steps"), [({}, SHORT), ({"errors": 900}, STEPS)])
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_between_any_two_lines_changes_nothing(
    faulty: dict[str, int],
    steps: Sequence[Mapping[str, float]],
    after: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each write and each act is the last one of its process once, before it is done and after it."""
    reference = Service(**faulty)
    planned = plan(tmp_path / "unbroken", steps)
    store = begun(planned, reference)
    *_, expected = run(control(planned, store, reference))
    expected_whats = [decision.what for decision in store.decisions()]
    place, killed = [0], 0
    real = Storage.write

    def write(self: Storage, name: str, text: str) -> None:
        place[0] -= 1
        if place[0] == 0 and not after:
            raise Killed
        real(self, name, text)
        if place[0] == 0:
            raise Killed

    monkeypatch.setattr(Storage, "write", write)
    for number in range(1, 400):
        service = Service(**faulty)
        planned = plan(tmp_path / f"{number}", steps)
        place[0] = -1
        store = begun(planned, service)
        place[0] = number
        try:
            *_, last = run(control(planned, store, service))
            break
        except Killed:
            killed += 1
        *_, last = run(control(planned, store, service))
        assert (last.status, last.step) == (expected.status, expected.step)
        assert (service.stable, service.weight, service.loaded) == (
            reference.stable,
            reference.weight,
            reference.loaded,
        )
        whats = [decision.what for decision in store.decisions()]
        assert whats == expected_whats
    assert killed > 10


@pytest.mark.parametrize("act", ["add", "steer", "take_over", "remove"])
def test_a_kill_in_the_middle_of_an_act_changes_nothing(act: str, tmp_path: Path) -> None:
    service, planned = Service(), plan(tmp_path)
    store = begun(planned, service)
    service.fails[act] = [Killed()]
    with pytest.raises(Killed):
        list(run(control(planned, store, service)))
    *_, last = run(control(planned, store, service))
    assert (last.status, service.stable, service.loaded, service.alias) == ("finished", NEW, {NEW}, [NEW])


def test_the_time_without_a_process_is_none_of_the_step(tmp_path: Path) -> None:
    service, planned = Service(), plan(tmp_path)
    store = begun(planned, service)
    service.rate = 0
    list(run(control(planned, store, service), 5))
    service.now += 3600  # the cluster was lost
    service.begin_again()
    state = next(run(control(planned, store, service)))
    assert (state.status, state.step) == ("running", 0)
    service.rate = 100
    *_, last = run(control(planned, store, service))
    assert last.status == "finished"
    # 3 s without a request, and 40 in which 5 of 100 were the new version's.
    assert store.decisions()[1].why.startswith("step 1 of 3 is complete: 200 requests in 43 s")


def test_a_version_that_cannot_load_leaves_the_other_untouched(tmp_path: Path) -> None:
    service = Service()
    service.fails["add"] = [ServingError(Problem(NEW, rule="cannot be served: no such layer"))]
    last = ended(tmp_path, service)
    assert (last.status, last.cause) == ("failed", f"{NEW}: cannot be served: no such layer")
    assert (service.stable, service.weight, service.loaded) == (OLD, None, {OLD})


def test_the_time_until_a_weight_is_given_is_none_of_the_step(tmp_path: Path) -> None:
    service = Service(different=1000)
    service.steer_s = 30.0  # longer than a step has to be
    last = ended(tmp_path, service, difference={})
    assert (last.status, last.step) == ("rolled back", 0)


def test_a_service_that_is_away_is_waited_for(tmp_path: Path) -> None:
    service = Service()
    service.fails["seen"] = [ConnectionError("no controller")] * 5
    service.fails["steer"] = [ConnectionError("no controller")] * 5
    assert ended(tmp_path, service).status == "finished"


@pytest.mark.parametrize("error", [TimeoutError(), ServingError(Problem(NEW, rule="none tells"))])
def test_counters_that_cannot_be_read_leave_the_interval_out(error: Exception, tmp_path: Path) -> None:
    service, planned = Service(), plan(tmp_path)
    store = begun(planned, service)
    service.fails["seen"] = [error] * 5
    states = list(run(control(planned, store, service)))
    assert states[0].trouble == str(error) or states[0].trouble == "TimeoutError"
    assert [decision.what for decision in store.decisions()] == ["start", "step", "step", "promote", "end"]


def test_rollouts_that_are_over_are_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service, planned = Service(), plan(tmp_path)
    store = begun(planned, service)
    listed: set[str] = set()
    real = Storage.names

    def names(self: Storage, folder: str = "") -> list[str]:
        listed.add(self.path(folder))
        return real(self, folder)

    monkeypatch.setattr(Storage, "names", names)
    *_, last = run(control(planned, store, service))
    assert last.status == "finished"
    assert listed == {f"{store.folder}/orders"}


def test_an_order_is_answered_while_the_version_loads_and_abort_ends_the_load(tmp_path: Path) -> None:
    service, planned = Service(), plan(tmp_path)
    store = begun(planned, service)
    service.loading = 3
    store.order("pause", who="ann")
    first, *_ = run(control(planned, store, service), 30)
    assert (first.status, service.loading, service.weight) == ("paused", 0, 0.05)

    service, planned = Service(), plan(tmp_path / "other")
    store = begun(planned, service)
    service.loading = 10
    add = service.add

    def ordered(plan: ServePlan, name: str, wanted: Callable[[], bool]) -> None:
        store.order("promote", who="ann")
        store.order("abort", who="bob")
        add(plan, name, wanted)

    service.add = ordered  # type: ignore[method-assign]
    *_, last = run(control(planned, store, service))
    assert (last.status, service.loading, service.weight, service.loaded) == ("aborted", 9, None, {OLD})
    assert [each.what for each in store.decisions()] == ["start", "refuse", "abort", "end"]


@pytest.mark.parametrize("act", ["add", "seen", "take_over"])
def test_a_model_that_is_not_served_any_more_ends_the_rollout_after_its_patience(
    act: str, tmp_path: Path
) -> None:
    service, planned = Service(), plan(tmp_path, SHORT)
    patient = replace(planned, rollout=planned.rollout.model_copy(update={"patience_s": 5.0}))
    service.fails[act] = [LookupError("model 'tiny' is not served")] * 100
    acts = control(patient, begun(patient, service), service)
    for _ in range(30):
        state = acts.tick()
        service.now += 1.0
    assert (state.status, state.cause) == (
        "failed",
        "the service does not answer: model 'tiny' is not served",
    )
    assert (service.stable, service.weight, service.loaded) == (OLD, None, {OLD})


@pytest.mark.parametrize("order", [None, "abort"])
def test_a_third_version_that_is_served_meanwhile_stays(order: Verb | None, tmp_path: Path) -> None:
    service, planned = Service(), plan(tmp_path)
    store = begun(planned, service)
    list(run(control(planned, store, service), 5))
    service.stable, service.weight, service.behaviour["/models/third"] = "/models/third", None, Behaviour()
    if order is not None:
        store.order(order, who="ann")
    calls = len(service.calls)
    *_, last = run(control(planned, store, service))
    assert last.status == ("failed" if order is None else "aborted")
    assert "/models/third is served meanwhile" in last.last
    assert (service.stable, service.alias) == ("/models/third", [])
    assert set(service.calls[calls:]) <= {"seen"}


def test_orders_are_kept_while_nobody_is_there_and_answered_once(tmp_path: Path) -> None:
    service, planned = Service(), plan(tmp_path)
    store = begun(planned, service)
    store.order("pause", who="ann", why="a look at the logs")
    states = list(run(control(planned, store, service), 60))
    assert (states[-1].status, states[-1].step, states[-1].cause) == (
        "paused",
        0,
        "ann paused it: a look at the logs",
    )
    store.order("pause", who="ann")
    store.order("promote", who="bob")
    states = list(run(control(planned, store, service), 3))
    assert (states[-1].status, states[-1].step) == ("running", 1)
    store.order("abort", who="bob", why="enough")
    *_, last = run(control(planned, store, service))
    assert (last.status, last.cause, service.stable, service.weight) == ("aborted", "enough", OLD, None)
    found = [(each.what, each.who) for each in store.decisions() if each.order]
    assert found == [("pause", "ann"), ("refuse", "ann"), ("step", "bob"), ("abort", "bob")]


def test_a_paused_rollout_is_still_watched(tmp_path: Path) -> None:
    service, planned = Service(), plan(tmp_path)
    store = begun(planned, service)
    store.order("pause", who="ann")
    list(run(control(planned, store, service), 20))
    service.behaviour[NEW].errors = 900
    *_, last = run(control(planned, store, service))
    assert last.status == "rolled back"


def test_too_few_requests_pause_it_with_a_line_that_says_so(tmp_path: Path) -> None:
    service, planned = Service(), plan(tmp_path)
    service.rate = 0
    states = list(run(control(planned, begun(planned, service), service), 700))
    assert states[-1].status == "paused"
    assert "requests: 0 of 200 after 600 s" in states[-1].cause


def test_a_number_of_prometheus_out_of_bounds_again_and_again_sends_it_back(tmp_path: Path) -> None:
    service = Service()
    metric = {"query": "q", "url": "http://prometheus:9090", "min": 5.0}
    planned = plan(tmp_path, metrics={"sold": metric}, metrics_s=1.0)
    numbers = iter([9.0, 1.0, 9.0, 1.0, 1.0, 1.0])
    *_, last = run(control(planned, begun(planned, service), service, lambda *of: next(numbers)))
    assert (last.status, last.cause) == ("rolled back", "metric sold: 1 is less than 5, 3 times in a row")


def test_a_number_that_is_missing_holds_the_step(tmp_path: Path) -> None:
    service = Service()
    metric = {"query": "q", "url": "http://prometheus:9090", "max": 5.0}
    planned = plan(tmp_path, metrics={"sold": metric}, metrics_s=1.0)

    def none(*of: object) -> float:
        raise ValueError("the query has no result")

    states = list(run(control(planned, begun(planned, service), service, none), 700))
    assert (states[-1].status, states[-1].step) == ("paused", 0)
    assert "the metric sold: the query has no result" in states[-1].cause
