"""What an automation decides, by a clock of the test, and that it goes on wherever its process is killed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from raystack import config
from raystack.config.automation import Automation
from raystack.errors import PlanError, Problem, ServingError
from raystack.plan.automation import AutomationPlan, last_firing, plan_automation
from raystack.rollout.automation.loop import Ended, Loop, Verdict
from raystack.rollout.automation.record import Entry, Record
from raystack.rollout.automation.rounds import Drifted, Round, Seen, State

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0


class Outside:
    """What an automation acts on: trainings that take an hour, gates, and rollouts that take one more."""

    def __init__(self) -> None:
        self.now = NOON
        self.seen = Seen()
        self.stop = False
        self.started: list[tuple[str, int]] = []
        self.running: dict[str, float] = {}
        self.rollouts: dict[str, float] = {}
        self.ended: list[str] = []
        self.gate = Verdict(True, "all gates")
        self.end_of_rollout = Verdict(True, "it has all traffic")
        self.training: Callable[[Round], Ended | None] = self._as_long_as_it_takes
        self.away = False

    def look(self, state: State, now: float) -> Seen:
        return self.seen

    def stops(self) -> bool:
        return self.stop

    def train(self, round: Round) -> int:
        self.started.append((round.run, round.attempt))
        self.running.setdefault(round.run, self.now)
        return 7

    def trained(self, round: Round) -> Ended | None:
        return self.training(round)

    def _as_long_as_it_takes(self, round: Round) -> Ended | None:
        if round.run not in self.running:
            return Ended(self.now, problem="its process is gone", lost=True)
        at = self.running[round.run] + HOUR
        return Ended(at, "models:/m/2") if self.now >= at else None

    def check(self, round: Round) -> Verdict:
        if self.away:
            raise ServingError(Problem("tracking.uri", rule="MLflow does not answer"))
        return self.gate

    def release(self, round: Round) -> str | None:
        self.rollouts.setdefault(round.id, self.now)
        return f"rollout-{round.id}"

    def released(self, round: Round) -> Verdict | None:
        return self.end_of_rollout if self.now >= self.rollouts[round.id] + HOUR else None

    def end(self, round: Round, why: str) -> None:
        self.ended.append(round.run)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., AutomationPlan]:
    def make(**section: Any) -> AutomationPlan:
        section = {"triggers": {"schedule": "0 3 * * *"}, "then": "nothing", "cooldown_s": 0, **section}
        then = section.pop("then")
        registered = ["tracking=local", "registry.model=m", "registry.alias=a"]
        base = config.load(TINY, [f"experiment.storage={tmp_path}", *registered])
        automation = Automation.model_validate({**section, "then": "nothing"}, strict=False)
        plan = plan_automation(base.model_copy(update={"automation": automation}))
        return replace(plan, automation=automation.model_copy(update={"then": then}))

    return make


class Run:
    """An automation with its clock."""

    def __init__(self, plan: AutomationPlan, outside: Outside) -> None:
        self.plan, self.outside, self.told = plan, outside, list[Entry]()
        self.record = Record(plan.folder)
        self.loop = Loop(plan, self.record, outside, self.told.append, outside.now)

    def at(self, hours: float, seen: Seen | None = None) -> State:
        """Look at a time after noon, and at what there is to do until nothing changes."""
        self.outside.now, self.outside.seen = NOON + hours * HOUR, seen or Seen()
        before = None
        while before != self.loop.state:
            before = self.loop.state
            self.loop.step(self.outside.now)
        return self.loop.state

    @property
    def steps(self) -> list[str]:
        return [entry.step for entry in self.record.entries()]


def fired(hours: float) -> Seen:
    return Seen(fired=NOON + hours * HOUR)


def test_a_round_from_the_trigger_to_the_end(make: Callable[..., AutomationPlan]) -> None:
    run = Run(make(then="rollout"), Outside())
    run.at(0, fired(-9))
    assert run.steps == [], "what was before the first start begins nothing"
    run.at(1, fired(1))
    run.at(2.1, fired(1))
    state = run.at(3.2, fired(1))
    assert run.steps == ["triggered", "began", "started", "trained", "passed", "releasing", "ended"]
    assert state.round is not None
    assert (state.round.good, state.round.version) == (True, "models:/m/2")
    run.at(4, fired(1))
    assert len(run.outside.started) == 1, "the same time of the schedule begins one round"


def test_a_refused_version_and_a_rollout_that_went_back_end_the_round(
    make: Callable[..., AutomationPlan],
) -> None:
    outside = Outside()
    run = Run(make(then="rollout"), outside)
    outside.gate = Verdict(False, "eval/accuracy is 0.4, and has to be 0.9", {"eval/accuracy": 0.4})
    run.at(1, fired(1))
    state = run.at(2, fired(1))
    assert state.round is not None
    assert not state.round.good
    assert not outside.rollouts
    outside.gate, outside.end_of_rollout = Verdict(True, "all gates"), Verdict(False, "rolled back: errors")
    run.at(3, fired(3))
    run.at(4, fired(3))
    state = run.at(5, fired(3))
    assert state.round is not None
    assert state.round.result == "models:/m/2: rolled back: errors"
    assert [
        entry.numbers.get("eval/accuracy") for entry in run.record.entries() if entry.step == "refused"
    ] == [0.4]


@pytest.mark.parametrize(
    ("section", "held_until", "rule"),
    [
        ({"cooldown_s": 3 * HOUR}, 5.0, "automation.cooldown_s"),
        ({"quiet": ["13:30-16:30"]}, 4.5, "automation.quiet"),
        ({"quiet": ["08:30-12:30"], "timezone": "America/New_York"}, 5.5, "automation.quiet"),
        ({"budget": {"runs_per_day": 1}}, 24.95, "automation.budget.runs_per_day"),
        ({"budget": {"hours_per_day": 1}}, 24.95, "automation.budget.hours_per_day"),
    ],
)
def test_what_may_not_begin_yet_waits_and_is_not_lost(
    make: Callable[..., AutomationPlan], section: Mapping[str, Any], held_until: float, rule: str
) -> None:
    run = Run(make(**section), Outside())
    run.at(0.9, fired(0.9))
    run.at(1.95, fired(1.8))
    for hours in (2.0, 3.0, held_until - 0.1):
        run.at(hours, fired(1.95))
    assert len(run.outside.started) == 1
    assert [entry.what.partition(":")[0] for entry in run.record.entries() if entry.step == "held"] == [rule]
    run.at(held_until + 0.1, fired(1.95))
    assert len(run.outside.started) == 2


def test_a_training_ends_where_the_hours_of_the_budget_do(make: Callable[..., AutomationPlan]) -> None:
    run = Run(make(budget={"hours_per_day": 0.5}), Outside())
    run.at(1, fired(1))
    state = run.at(1.51, fired(1))
    assert run.outside.ended == [state.round and state.round.run]
    assert "budget" in str(state.round and state.round.result)


def test_the_stop_file_ends_all_that_runs(make: Callable[..., AutomationPlan]) -> None:
    run = Run(make(), Outside())
    run.at(1, fired(1))
    run.outside.stop = True
    state = run.at(1.1, fired(1.1))
    assert run.outside.ended == [state.round and state.round.run]
    run.at(3, fired(3))
    run.outside.stop = False
    run.at(4, fired(3))
    assert run.steps.count("stopped") == run.steps.count("resumed") == 1
    assert len(run.outside.started) == 2


def test_a_lost_training_goes_on_with_its_run(make: Callable[..., AutomationPlan]) -> None:
    outside = Outside()
    run = Run(make(action={"attempts": 2}), outside)
    run.at(1, fired(1))
    outside.training = lambda round: Ended(outside.now, problem="killed", lost=True)
    state = run.at(1.1, fired(1))
    assert [attempt for _, attempt in outside.started] == [1, 2]
    assert len({name for name, _ in outside.started}) == 1
    assert str(state.round and state.round.result) == "the training has failed: killed"


def test_a_registry_that_is_away_is_asked_again(make: Callable[..., AutomationPlan]) -> None:
    run = Run(make(), Outside())
    run.outside.away = True
    run.at(1, fired(1))
    run.at(2.1, fired(1))
    run.at(2.2, fired(1))
    assert run.steps.count("waiting") == 1
    run.outside.away = False
    state = run.at(2.3, fired(1))
    assert state.round is not None
    assert state.round.good


def test_drift_has_to_last_and_begins_one_round(make: Callable[..., AutomationPlan]) -> None:
    drift = {"events": "/drift", "for_s": 600}
    run = Run(make(triggers={"drift": drift}), Outside())
    detected = Seen((Drifted("x", NOON + HOUR, "input 'x'"),))
    assert not run.at(1.1, detected).pending
    run.at(1.2, detected)
    assert len(run.outside.started) == 1
    run.at(3, detected)
    assert len(run.outside.started) == 1, "the training that followed has answered it"
    run.at(5, Seen((Drifted("x", NOON + 4 * HOUR, "input 'x'"),)))
    assert len(run.outside.started) == 2


def test_an_index_above_the_threshold_counts_from_when_it_is_first_seen(
    make: Callable[..., AutomationPlan],
) -> None:
    run = Run(make(triggers={"drift": {"metrics": "http://m", "for_s": 600}}), Outside())
    above = Seen((Drifted("m 1 input x", None, "input 'x'"),))
    for hours in (1.0, 1.1):
        run.at(hours, above)
    run.at(1.15)
    run.at(1.2, above)
    assert not run.outside.started
    run.at(1.4, above)
    run.at(3, above)
    assert len(run.outside.started) == 1


def test_data_counts_when_it_has_settled(make: Callable[..., AutomationPlan]) -> None:
    run = Run(make(triggers={"data": {"url": "/data", "settle_s": 600}}), Outside())
    run.at(0, Seen(data="old"))
    run.at(1, Seen(data="half"))
    run.at(1.1, Seen(data="whole"))
    run.at(1.2, Seen(data="whole"))
    assert not run.outside.started
    run.at(1.3, Seen(data="whole"))
    run.at(5, Seen(data="whole"))
    assert len(run.outside.started) == 1


class KilledError(BaseException):
    """The end of a process, which nothing catches."""


def _kill_at(run: Run, count: int) -> Iterator[int]:
    """Have everything that a process does outside itself be the last, at the `count`th time."""
    left = iter(range(count))

    def killing(act: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
        def do(*words: Any) -> Any:
            result = act(*words) if after else None
            if next(left, None) is None:
                raise KilledError
            return result if after else act(*words)

        return do

    for holder, names in ((run.record, ("write", "add")), (run.outside, ("train", "check", "release"))):
        for name in names:
            setattr(holder, name, killing(getattr(holder, name), after=bool(count % 2)))
    return left


@pytest.mark.parametrize("count", range(30))
def test_killed_anywhere_it_goes_on_and_nothing_is_doubled(
    make: Callable[..., AutomationPlan], count: int
) -> None:
    plan, outside = make(then="rollout"), Outside()
    killed, first = False, Run(plan, outside)
    _kill_at(first, count)
    try:
        for hours in (1, 2.1, 3.2):
            first.at(hours, fired(1))
    except KilledError:
        killed = True
    for name in ("train", "check", "release"):
        outside.__dict__.pop(name, None)
    again = Run(plan, outside)
    for hours in (2.5, 3.6, 5.0):
        state = again.at(hours, fired(1))
    assert state.round is not None
    assert state.round.good, (killed, state)
    assert len({name for name, _ in outside.started}) == 1
    assert len(outside.rollouts) == 1
    steps = [step for step in again.steps if step not in ("triggered", "lost", "started")]
    assert steps == ["began", "trained", "passed", "releasing", "ended"]


def test_the_plan_names_what_cannot_work() -> None:
    given = {"triggers": {"schedule": "61 * * * *"}, "action": {"verb": "tune"}}
    section = Automation.model_validate(given, strict=False)
    base = config.load(TINY, [])
    broken = base.model_copy(update={"automation": section, "registry": type(base.registry)()})
    with pytest.raises(PlanError) as refused:
        plan_automation(broken)
    wrong = [problem.where for problem in refused.value.problems]
    assert wrong[:2] == ["automation.triggers.schedule", "registry.model"]
    assert "automation.action.verb" in wrong


def test_a_rollout_that_cannot_be_is_refused_before_a_training() -> None:
    section = Automation.model_validate({"triggers": {"schedule": "@daily"}}, strict=False)
    named = ["tracking=local", "registry.model=m", "registry.alias=a", "serving.model=models:/m@a"]
    without_steps = config.load(TINY, [*named, "target.address=127.0.0.1:6379", "+rollout.steps=[]"])
    with pytest.raises(PlanError, match=r"rollout\.steps: there is no step"):
        plan_automation(without_steps.model_copy(update={"automation": section}))


def test_the_last_time_of_a_schedule_is_one_of_its_time_zone() -> None:
    at = last_firing("0 3 * * *", "Europe/Vienna", NOON)
    assert datetime.fromtimestamp(at, UTC).hour == 2
    assert last_firing("0 12 * * *", "UTC", NOON) == NOON
