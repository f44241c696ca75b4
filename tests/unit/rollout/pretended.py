"""A service that is none: a rollout's Traffic whose versions behave as they are told, with its own time."""

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raystack import config as configs
from raystack.config.rollout import Rollout
from raystack.plan import ServePlan
from raystack.plan.rollout import RolloutPlan, plan_rollout
from raystack.rollout.control import Control, Outside
from raystack.rollout.state import Decision, State
from raystack.rollout.store import RolloutStore

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"
BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 1.0)
OLD, NEW = "/models/old", "/models/new"


@dataclasses.dataclass
class Behaviour:
    """Of 1,000 requests, how many fail, take 40 ms in place of 4, and are answered otherwise."""

    errors: int = 0
    slow: int = 0
    different: int = 0


@dataclasses.dataclass
class Row:
    replica: str
    version: str
    requests: int = 0
    errors: int = 0
    latency: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    compared: int = 0
    different: int = 0
    dropped: int = 0
    largest: dict[str, float] = dataclasses.field(default_factory=dict)


class Service:
    """100 requests a second; time passes with each look at the counters."""

    def __init__(self, **new: int) -> None:
        self.now, self.rate = 1_000_000.0, 100
        self.behaviour = {OLD: Behaviour(), NEW: Behaviour(**new)}
        self.stable: str | None = OLD
        self.weight: float | None = None
        self.shadow, self.loaded = False, {OLD}
        self.rows: dict[str, Row] = {}
        self._rest: Counter[tuple[str, int]] = Counter()
        self.calls: list[str] = []
        self.alias: list[str] = []
        self.back: list[str] = []
        self.fails: dict[str, list[BaseException]] = {}
        self.replica = "one"
        self.loading = 0
        """Times that a version is asked for before it is loaded."""
        self.steer_s = 0.0
        """Seconds that a change of the weights takes."""
        self.bounds: tuple[float, ...] = BOUNDS

    def add(self, plan: ServePlan, name: str, wanted: Callable[[], bool]) -> None:
        self._called("add")
        while self.loading:
            self.loading -= 1
            if not wanted():
                return
        assert plan.serving.split is not None
        self.loaded |= set(plan.serving.split.models)

    def steer(self, plan: ServePlan, name: str) -> None:
        self._called("steer")
        self.now += self.steer_s
        split = plan.serving.split
        assert split is None or set(split.models) <= self.loaded, "a version that is not loaded"
        self.weight = None if split is None else split.models.get(NEW)
        self.shadow = split is not None and split.shadow is not None

    def take_over(self, plan: ServePlan, name: str) -> None:
        self._called("take_over")
        self.stable, self.weight, self.shadow = plan.serving.model, None, False

    def remove(self, plan: ServePlan, name: str) -> None:
        self._called("remove")
        assert plan.serving.model is not None
        self.loaded = {plan.serving.model}

    def served(self, name: str) -> str | None:
        return self.stable

    def seen(self, name: str) -> list[Row]:
        self._called("seen")
        new = round(self.rate * (self.weight or 0.0))
        self._answer(str(self.stable), self.rate - new)
        if NEW in self.loaded and self.stable == OLD:
            self._answer(NEW, new, copies=self.rate - new if self.shadow else 0)
        self.now += 1.0
        return [dataclasses.replace(row) for row in self.rows.values()]

    def begin_again(self) -> None:
        """The replica is lost, and another one begins to count."""
        self.replica, self.rows = self.replica + "'", {}

    def _answer(self, version: str, requests: int, copies: int = 0) -> None:
        of = self.behaviour[version]
        errors, failed = (self._part(version, kind, of.errors, n) for kind, n in ((1, requests), (2, copies)))
        slow = self._part(version, 3, of.slow, requests - errors)
        different = self._part(version, 4, of.different, copies - failed)
        self._count(version, requests, errors, slow, (copies, failed, different))

    def _part(self, version: str, kind: int, per_thousand: int, of: int) -> int:
        """So many of a thousand; what is less than one is kept for the next time."""
        self._rest[version, kind] += of * per_thousand
        part, self._rest[version, kind] = divmod(self._rest[version, kind], 1000)
        return min(part, of)

    def _count(
        self, version: str, requests: int, errors: int, slow: int, copies: tuple[int, int, int] = (0, 0, 0)
    ) -> None:
        row = self.rows.setdefault(version, Row(self.replica, version))
        right = requests - errors
        within = (
            (right - slow if bound >= 0.005 else 0) + (slow if bound >= 0.05 else 0) for bound in BOUNDS
        )
        row.latency = tuple(old + new for old, new in zip(row.latency, (*within, right), strict=True))
        made, failed, different = copies
        row.requests += requests
        row.errors += errors + failed
        row.compared += made - failed
        row.different += different

    def _called(self, what: str) -> None:
        self.calls.append(what)
        if self.fails.get(what):
            raise self.fails[what].pop(0)


STEPS = ({"weight": 0.05}, {"weight": 0.5}, {"weight": 1.0})


class Noisy(Service):
    """Both versions are the same: they fail now and then, and stall together or alone, all at once."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    def _answer(self, version: str, requests: int, copies: int = 0) -> None:
        errors = self._some(0.01, requests)
        stalls = self._random.random() < 0.02
        slow = (requests - errors) // 2 if stalls else self._some(0.003, requests - errors)
        self._count(version, requests, errors, slow, (copies, 0, self._some(0.002, copies)))

    def _some(self, rate: float, of: int) -> int:
        return sum(self._random.random() < rate for _ in range(of))


def plan(folder: Path, steps: Sequence[Mapping[str, float]] = STEPS, **analysis: Any) -> RolloutPlan:
    given = {"model": NEW, "steps": steps, "analysis": analysis}
    overrides = [f"serving.model={OLD}", "target.address=127.0.0.1:1", f"experiment.storage={folder}"]
    config = configs.load(TINY, overrides)
    rollout = Rollout.model_validate(given)
    return plan_rollout(config.model_copy(update={"rollout": rollout})).pinned(OLD, NEW)


def begun(plan: RolloutPlan, service: Service) -> RolloutStore:
    store = RolloutStore(f"{plan.folder}/one")
    state = State("one", plan.name, OLD, NEW, began=service.now, weight=plan.steps[0].weight)
    store.create(plan.config, state, Decision(service.now, "start", "at the start"))
    return store


def control(
    plan: RolloutPlan, store: RolloutStore, service: Service, ask: Callable[..., float] | None = None
) -> Control:
    outside = Outside(
        service,
        ask or (lambda *of: 0.0),
        lambda plan, state: service.alias.append(state.candidate),
        lambda plan, state: service.back.append(state.candidate),
        lambda: service.now,
    )
    return Control(plan, store, outside)


def run(control: Control, most: int = 300) -> Iterator[State]:
    """Yield the states until the rollout is over, or so many intervals have passed."""
    state = control.begin()
    for _ in range(most):
        state = control.tick()
        yield state
        if state.over:
            return
