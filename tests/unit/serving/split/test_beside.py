"""Who answers a request, what becomes of copies, and a version that cannot answer in the place of another."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from raystack.config.serving import Serving
from raystack.config.split import Shadow, Split, Sticky
from raystack.errors import Problem, ServingError
from raystack.serving.batcher import Answer, Arrays
from raystack.serving.engine import LostError
from raystack.serving.load import Load
from raystack.serving.protocol import Contract, InferRequest, RequestError
from raystack.serving.server import Admission, Call, Model, Server
from raystack.serving.split.beside import Beside
from raystack.serving.split.choice import Choice
from raystack.serving.split.mirror import differences
from raystack.serving.split.samples import samples
from raystack.serving.split.seen import LATENCY_BOUNDS_S, Seen
from raystack.serving.versions import Version
from raystack.task import Signature, TensorSpec

X, Y = TensorSpec("x", "float32", (-1, 1)), TensorSpec("y", "float32", (-1, 1))
STABLE, OTHER = "models:/echo/1", "models:/echo/2"


def request(value: float = 0.0) -> InferRequest:
    return InferRequest("r1", {"x": np.full((1, 1), value, np.float32)}, 1, ())


def test_shares_are_as_asked_for_without_a_key() -> None:
    choice = Choice("echo", {"a": 0.1, "b": 0.3}, None)
    found = Counter(choice.version(request(), None) for _ in range(10_000))
    assert abs(found["a"] - 1000) < 130
    assert abs(found["b"] - 3000) < 200


@pytest.mark.parametrize("sticky", [Sticky(header="X-User"), Sticky(input="x")])
def test_no_key_goes_back_while_a_share_grows(sticky: Sticky) -> None:
    before: set[int] = set()
    for share in (0.0, 0.05, 0.5, 1.0):
        choice = Choice("echo", {"a": share}, sticky)
        keys = range(2000)
        found = {key for key in keys if choice.version(request(key), {"x-user": str(key)}) == "a"}
        assert before <= found
        assert abs(len(found) - 2000 * share) <= 4 * (2000 * share * (1 - share)) ** 0.5
        before = found


@pytest.mark.parametrize(
    ("stable", "other", "difference"),
    [
        ([1.0, 2.0], [1.0, 2.0 + 1e-6], None),
        ([1.0, 2.0], [1.0, 2.5], 0.5),
        ([np.nan, 1.0], [np.nan, 1.0], None),
        ([np.nan, 1.0], [0.0, 1.0], np.inf),
        ([np.inf, 1.0], [np.inf, 3.0], 2.0),
        ([1.0], [1.0, 2.0], np.inf),
    ],
)
def test_outputs_differ_beyond_the_tolerances(
    stable: list[float], other: list[float], difference: float | None
) -> None:
    found = differences({"y": np.array(stable)}, {"y": np.array(other)}, Shadow(model=OTHER))
    assert found == ({} if difference is None else {"y": difference})


def test_bytes_are_compared_as_they_are() -> None:
    one, other = (np.array([text], object) for text in (b"a", b"b"))
    assert differences({"y": one}, {"y": one.copy()}, Shadow(model=OTHER)) == {}
    assert differences({"y": one}, {"y": other}, Shadow(model=OTHER)) == {"y": np.inf}


class Engine:
    """Answers a number, or raises."""

    max_size, decoupled = 1, False
    passes: Mapping[int, Any] = {}

    def __init__(self, outcome: float | Exception, signature: Signature) -> None:
        self.outcome, self.signature, self.free = outcome, signature, asyncio.Event()
        self.free.set()

    async def predict(self, inputs: Arrays, size: int) -> Answer:
        await self.free.wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return Answer({"y": np.full((size, 1), self.outcome, np.float32)}, 0.001, 0.003, size)

    async def stream(self, inputs: Arrays, size: int) -> Any:
        yield (await self.predict(inputs, size)).outputs

    def close(self) -> None: ...


class Replica:
    """A server whose stable version is 1, with a version 2 that other processes have."""

    def __init__(
        self, split: Split, outcome: float | Exception = 2.0, inputs: tuple[TensorSpec, ...] = (X,)
    ) -> None:
        self.engine = Engine(outcome, Signature(inputs, (Y,)))
        self.server, self.model = Server(), Model("echo", Admission(8, 8))
        self.server.add(self.model)
        own = Signature((X,), (Y,))
        self.stable = Version(Contract("echo", "1", own), Engine(1.0, own), "ready")
        self.server.put(self.stable)
        self.serving = Serving(name="echo", model=STABLE, split=split)
        self.beside = Beside(self.model, self.reach, "r")

    async def reach(self, reference: str, serving: Serving) -> Version:
        return Version(Contract("echo", "2", self.engine.signature), self.engine)

    async def begin(self) -> None:
        await self.beside.prepare(self.serving, self.stable)
        self.beside.apply(self.serving, self.stable)

    async def ask(self, version: str | None = None) -> str:
        call = Call("rest", time.perf_counter(), named=version is not None)
        answered = await self.server.infer(self.model, self.model.version(version), request(), call)
        assert answered.outputs["y"][0, 0] == float(answered.version.contract.version)
        return answered.version.contract.version

    def seen(self) -> dict[str, Seen]:
        return {each.version: each for each in self.beside.seen()}


def test_the_version_that_answers_is_told_and_counted() -> None:
    async def run() -> None:
        replica = Replica(Split(models={OTHER: 1.0}))
        assert await replica.ask() == "1"
        await replica.begin()
        assert [await replica.ask(), await replica.ask("1"), await replica.ask("2")] == ["2", "1", "2"]
        seen = replica.seen()
        assert (seen[STABLE].requests, seen[OTHER].requests, seen[OTHER].errors) == (1, 2, 0)
        assert len(seen[OTHER].latency) == len(LATENCY_BOUNDS_S) + 1
        assert seen[OTHER].latency[LATENCY_BOUNDS_S.index(0.005)] == seen[OTHER].latency[-1] == 2
        replica.beside.apply(replica.serving.model_copy(update={"split": None}), replica.stable)
        assert (await replica.ask(), set(replica.model.present)) == ("1", {"1"})

    asyncio.run(run())


def test_the_stable_version_answers_for_one_that_is_lost() -> None:
    async def run() -> None:
        replica = Replica(Split(models={OTHER: 1.0}), LostError())
        await replica.begin()
        assert await replica.ask() == "1"
        with pytest.raises(RequestError, match="no replica answers") as refused:
            await replica.ask("2")
        assert refused.value.status == 503
        assert (replica.seen()[OTHER].errors, replica.seen()[STABLE].errors) == (2, 0)

    asyncio.run(run())


def test_an_error_of_the_version_is_an_error() -> None:
    async def run() -> None:
        replica = Replica(Split(models={OTHER: 1.0}), ValueError("wrong"))
        await replica.begin()
        with pytest.raises(RequestError, match="the model failed") as refused:
            await replica.ask()
        assert refused.value.status == 500
        assert (replica.seen()[OTHER].requests, replica.seen()[OTHER].errors) == (1, 1)

    asyncio.run(run())


def test_copies_are_compared_and_at_most_so_many_are_waited_for() -> None:
    async def run() -> None:
        replica = Replica(Split(shadow=Shadow(model=OTHER, max_ongoing=2)))
        await replica.begin()
        replica.engine.free.clear()
        assert [await replica.ask() for _ in range(5)] == ["1"] * 5
        replica.engine.free.set()
        await asyncio.sleep(0.01)
        seen = replica.seen()[OTHER]
        assert (seen.compared, seen.different, seen.dropped, seen.requests) == (2, 2, 3, 0)
        assert seen.largest == {"y": 1.0}

    asyncio.run(run())


def test_a_copy_that_is_refused_is_dropped_and_one_that_hangs_is_an_error() -> None:
    async def run() -> None:
        replica = Replica(Split(shadow=Shadow(model=OTHER)), RequestError(Problem("queue", rule="full"), 429))
        replica.serving = replica.serving.model_copy(update={"timeout_s": 0.01})
        await replica.begin()
        assert await replica.ask() == "1"
        await asyncio.sleep(0.01)
        assert (replica.seen()[OTHER].errors, replica.seen()[OTHER].dropped) == (0, 1)
        replica.engine.free.clear()
        assert await replica.ask() == "1"
        async with asyncio.timeout(5):
            while not replica.seen()[OTHER].errors:
                await asyncio.sleep(0.001)

    asyncio.run(run())


def test_a_version_that_changes_places_with_the_stable_one_keeps_its_name() -> None:
    async def run() -> None:
        replica = Replica(Split(models={OTHER: 1.0}))
        await replica.begin()
        own = replica.stable.contract.signature

        async def reach(reference: str, serving: Serving) -> Version:
            return Version(Contract("echo", "1", own), Engine(1.0, own))

        replica.beside._reach = reach
        swapped = {"model": OTHER, "split": Split(models={STABLE: 1.0})}
        replica.serving = replica.serving.model_copy(update=swapped)
        before, replica.stable = replica.stable, Version(Contract("echo", "2", own), Engine(2.0, own))
        await replica.beside.prepare(replica.serving, replica.stable)
        replica.stable.state = "ready"
        replica.server.put(replica.stable)
        replica.beside.apply(replica.serving, replica.stable)
        before.retire()
        assert [await replica.ask(), await replica.ask("1"), await replica.ask("2")] == ["1", "1", "2"]

    asyncio.run(run())


def test_what_was_prepared_and_is_discarded_does_not_stay() -> None:
    async def run() -> None:
        replica = Replica(Split(models={OTHER: 1.0}))
        await replica.beside.prepare(replica.serving, replica.stable)
        replica.beside.discard()
        assert set(replica.model.present) == {"1"}
        await replica.begin()
        replica.beside.discard()
        assert await replica.ask() == "2"

    asyncio.run(run())


def test_what_is_handed_on_is_load_of_the_replica() -> None:
    async def run() -> None:
        replica = Replica(Split(models={OTHER: 1.0}))
        await replica.begin()
        load = Load(replica.model)
        replica.engine.free.clear()
        asked = [asyncio.create_task(replica.ask()) for _ in range(3)]
        await asyncio.sleep(0)
        assert load.now() == 3
        replica.engine.free.set()
        assert await asyncio.gather(*asked) == ["2"] * 3

    asyncio.run(run())


def test_a_version_with_other_inputs_is_refused_and_the_shares_stay() -> None:
    async def run() -> None:
        replica = Replica(Split(models={OTHER: 1.0}), inputs=(TensorSpec("x", "int64", (-1, 1)),))
        with pytest.raises(ServingError, match=r"input 'x' is float32 \[-1, 1\].*got int64"):
            await replica.begin()
        assert await replica.ask() == "1"

    asyncio.run(run())


def test_a_version_that_is_not_reached_gets_its_share_when_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raystack.serving.split.beside.AGAIN_S", 0.001)

    async def run() -> None:
        replica = Replica(Split(models={OTHER: 1.0}))
        reach, tries = replica.reach, iter([False, False, True])

        async def later(reference: str, serving: Serving) -> Version:
            if not next(tries):
                raise ServingError([])
            return await reach(reference, serving)

        replica.beside._reach = later
        replica.beside.apply(replica.serving, replica.stable)
        assert await replica.ask() == "1"
        async with asyncio.timeout(5):
            await replica.beside.settle()
        assert await replica.ask() == "2"

    asyncio.run(run())


def test_a_new_replica_waits_for_no_version_without_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raystack.serving.split.beside.SETTLES_S", 0.01)

    async def run() -> None:
        replica = Replica(Split(models={"models:/echo/3": 0.5, OTHER: 0.5}))
        reach = replica.reach

        async def one_alone(reference: str, serving: Serving) -> Version:
            if reference != OTHER:
                raise ServingError([])
            return await reach(reference, serving)

        replica.beside._reach = one_alone
        replica.beside.apply(replica.serving, replica.stable)
        async with asyncio.timeout(5):
            await replica.beside.settle()
        assert {await replica.ask() for _ in range(50)} == {"1", "2"}
        replica.beside.apply(replica.serving.model_copy(update={"split": None}), replica.stable)

    asyncio.run(run())


def test_prometheus_has_shares_and_comparisons() -> None:
    async def run() -> None:
        replica = Replica(Split(models={OTHER: 0.0}, shadow=Shadow(model=OTHER)))
        await replica.begin()
        await replica.ask()
        await asyncio.sleep(0.01)
        found = {each.name: (dict(each.labels), each.value) for each in samples("echo", replica.beside)}
        labels = {"model": "echo", "version": "2"}
        assert found == {
            "raystack_split_weight": (labels, 0.0),
            "raystack_shadow_compared_total": (labels, 1),
            "raystack_shadow_dropped_total": (labels, 0),
            "raystack_shadow_different_total": ({**labels, "output": "y"}, 1),
        }

    asyncio.run(run())
