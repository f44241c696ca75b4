"""One server of models for every transport: what it admits, how long, who answers, and who hears of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
import pytest

from raystack.errors import Problem
from raystack.serving.admission import Admission
from raystack.serving.engine import ModelEngine
from raystack.serving.observers import Observed
from raystack.serving.protocol import Contract, InferRequest, RequestError
from raystack.serving.protocol.tensors import Array
from raystack.serving.server import Call, Model, Server, Version
from raystack.task import Signature, TensorSpec

ECHO = Signature((TensorSpec("x", "float32", (-1, 1)),), (TensorSpec("x", "float32", (-1, 1)),))


class Echo:
    """A model that takes its time and adds the number of its version."""

    def __init__(self, added: float = 0.0, seconds: float = 0.0) -> None:
        self.added, self.seconds, self.passes = added, seconds, 0

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.passes += 1
        time.sleep(self.seconds)
        return {"x": inputs["x"] + np.float32(self.added)}


class Engine(ModelEngine):
    """Notes its end."""

    closed = False

    def close(self) -> None:
        super().close()
        self.closed = True


class Noting:
    """Observer that keeps what it hears."""

    def __init__(self) -> None:
        self.seen: list[Observed] = []

    def observed(self, seen: Observed) -> None:
        self.seen.append(seen)


def version(name: str = "1", model: Echo | None = None, state: Any = "ready") -> Version:
    contract = Contract("echo", name, ECHO)
    return Version(contract, Engine(ECHO, model or Echo(float(name)), 1, 0.0), state)


def serving(
    *versions: Version, ongoing: int = 4, queued: int = 4, timeout_s: float | None = None
) -> tuple[Server, Model]:
    server, model = Server(), Model("echo", Admission(ongoing, queued), timeout_s)
    server.add(model)
    for each in versions:
        server.put(each)
    return server, model


async def asked(
    server: Server,
    model: Model,
    *,
    value: float = 0.0,
    version: str | None = None,
    timeout_s: float | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> float:
    x = np.full((1, 1), value, np.float32)
    request = InferRequest("r1", {"x": x}, 1, (), parameters or {})
    call = Call("rest", time.perf_counter(), timeout_s)
    return float((await server.infer(model, model.version(version), request, call)).outputs["x"][0, 0])


async def outcome(answer: Awaitable[float]) -> float | int:
    try:
        return await answer
    except RequestError as refused:
        return refused.status


def test_the_newest_version_that_is_ready_answers() -> None:
    server, model = serving(version("1"), version("2"), version("3", state="loading"))
    assert asyncio.run(asked(server, model)) == 2
    assert asyncio.run(asked(server, model, version="1")) == 1
    model.known("3").state = "ready"
    assert asyncio.run(asked(server, model)) == 3


@pytest.mark.parametrize(
    ("wanted", "status", "message"),
    [
        ("9", 404, "model 'echo', version '9': this server has version '1', '2'"),
        ("2", 503, "model 'echo', version '2': is unavailable: the weights do not fit"),
    ],
)
def test_a_version_that_does_not_answer(wanted: str, status: int, message: str) -> None:
    broken = version("2", state="unavailable")
    broken.reason = "the weights do not fit"
    _, model = serving(version("1"), broken)
    with pytest.raises(RequestError) as raised:
        model.version(wanted)
    assert (raised.value.status, str(raised.value)) == (status, message)


@pytest.mark.parametrize("name", ["ecko", "x" * 100_000])
def test_an_unknown_model_is_a_404(name: str) -> None:
    server, _ = serving(version("1"))
    with pytest.raises(RequestError, match="this server has 'echo'") as raised:
        server.model(name)
    assert raised.value.status == 404
    assert len(str(raised.value)) < 1000


def test_a_version_that_is_replaced_answers_what_it_has_and_then_closes() -> None:
    async def run() -> None:
        old, new = version("1", Echo(1, 0.3)), version("2")
        server, model = serving(old)
        early = [asyncio.create_task(asked(server, model)) for _ in range(3)]
        await asyncio.sleep(0.1)
        server.put(new)
        server.retire("echo", "1", "replaced by version 2")
        assert await asked(server, model) == 2
        assert old.state == "unloading"
        assert await asyncio.gather(*early) == [1, 1, 1]
        assert (old.state, old.engine) == ("unavailable", None)
        assert [(each["version"], each["state"]) for each in server.index()] == [
            ("1", "UNAVAILABLE"),
            ("2", "READY"),
        ]
        assert [each["version"] for each in server.index(ready=True)] == ["2"]

    asyncio.run(run())


def test_a_version_without_requests_closes_at_once() -> None:
    old = version("1")
    engine = old.engine
    server, _ = serving(old, version("2"))
    server.retire("echo", "1")
    assert isinstance(engine, Engine)
    assert engine.closed


def test_a_version_of_the_same_name_takes_the_place_of_the_other() -> None:
    old = version("1")
    server, model = serving(old)
    server.put(version("1", Echo(10)))
    assert asyncio.run(asked(server, model)) == 10
    assert old.state == "unavailable"


def test_a_request_above_the_limits_is_a_429_and_the_others_are_answered() -> None:
    async def run() -> list[float | int]:
        server, model = serving(version("1", Echo(1, 0.05)), ongoing=1, queued=2)
        return await asyncio.gather(*(outcome(asked(server, model)) for _ in range(5)))

    assert asyncio.run(run()) == [1, 1, 1, 429, 429]


@pytest.mark.parametrize(
    "bound",
    [
        {"timeout_s": 0.2},
        {"parameters": {"timeout": 200_000}},
        {"timeout_s": 60.0, "parameters": {"timeout": 200_000}},
    ],
)
def test_a_request_whose_time_is_up_is_a_504_and_frees_its_slot(bound: dict[str, Any]) -> None:
    async def run() -> None:
        slow = Echo(1, 2.0)
        server, model = serving(version("1", slow), ongoing=1, queued=2)
        first = asyncio.create_task(outcome(asked(server, model)))
        await asyncio.sleep(0)
        assert await outcome(asked(server, model, **bound)) == 504
        assert not first.done()
        assert (model.admission.ongoing, model.admission.waiting) == (1, 0)
        assert await first == 1
        assert model.admission.ongoing == 0
        assert slow.passes == 1, "it was computed for nobody"

    asyncio.run(run())


def test_the_server_s_own_bound_is_the_upper_one() -> None:
    server, model = serving(version("1", Echo(1, 1.0)), timeout_s=0.2)
    with pytest.raises(RequestError, match=r"request 'r1': was not answered within 0.2 s"):
        asyncio.run(asked(server, model, timeout_s=60.0))


def test_a_model_s_own_timeout_is_its_error() -> None:
    def late(inputs: Mapping[str, Array]) -> dict[str, Array]:
        raise TimeoutError("a backend did not answer")

    server, model = serving(Version(Contract("echo", "1", ECHO), ModelEngine(ECHO, late, 1, 0.0), "ready"))
    assert asyncio.run(outcome(asked(server, model, timeout_s=60.0))) == 500


def test_requests_that_are_given_up_leave_nothing() -> None:
    async def run() -> None:
        server, model = serving(version("1", Echo(1, 0.2)), ongoing=1, queued=8)
        tasks = [asyncio.create_task(asked(server, model)) for _ in range(4)]
        await asyncio.sleep(0.05)
        for task in tasks[1:3]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [answers[0], answers[3]] == [1, 1]
        assert (model.admission.ongoing, model.admission.waiting) == (0, 0)
        assert model.version().ongoing == 0

    asyncio.run(run())


def test_a_slot_that_comes_with_a_cancellation_goes_to_the_next() -> None:
    async def run() -> None:
        admission = Admission(1, 4)
        await admission.wait()
        waiting = [asyncio.create_task(admission.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        admission.leave()  # to the first that waits, which is cancelled before it knows
        waiting[0].cancel()
        await asyncio.wait(waiting[:2])
        assert waiting[0].cancelled()
        assert waiting[1].done()
        assert (admission.ongoing, admission.waiting) == (1, 1)
        admission.leave()
        admission.leave()
        await waiting[2]
        assert admission.ongoing == 0

    asyncio.run(run())


def test_observers_hear_of_answers_and_refusals() -> None:
    async def run() -> list[Observed]:
        server, model = serving(version("1", Echo(1, 0.05)))
        heard = Noting()
        server.observers.append(heard)
        await asked(server, model, value=2)
        await outcome(asked(server, model, timeout_s=0.01))
        server.refused(
            Call("v1", time.perf_counter()), model.version(), RequestError(Problem("body", rule="wrong"), 400)
        )
        return heard.seen

    good, late, bad = asyncio.run(run())
    assert (good.model, good.version, good.id, good.protocol, good.status) == ("echo", "1", "r1", "rest", 200)
    assert good.outputs is not None
    assert good.outputs["x"].tolist() == [[3.0]]
    assert 0.05 <= good.compute_s <= good.total_s
    assert abs(good.started - time.time()) < 60
    assert (late.status, late.outputs) == (504, None)
    assert (bad.status, bad.request, bad.protocol, bad.error) == (400, None, "v1", "body: wrong")


def test_statistics_have_triton_s_fields() -> None:
    async def run() -> dict[str, Any]:
        server, model = serving(version("1", Echo(1, 0.05)))
        await asyncio.gather(asked(server, model), asked(server, model))
        await outcome(asked(server, model, timeout_s=0.01))
        found = model.version()
        assert found.engine is not None
        return found.statistics.as_dict(found.engine.passes)

    found = asyncio.run(run())
    assert (found["inference_count"], found["execution_count"]) == (2, 2)
    stats = found["inference_stats"]
    assert (stats["success"]["count"], stats["fail"]["count"]) == (2, 1)
    assert stats["compute_infer"]["ns"] >= 100_000_000
    assert stats["queue"]["ns"] >= 50_000_000
    assert stats["success"]["ns"] >= stats["queue"]["ns"] + stats["compute_infer"]["ns"]


def test_loading_on_request_is_offered_where_there_is_a_repository() -> None:
    class Repository:
        def __init__(self) -> None:
            self.asked: list[tuple[str, str]] = []

        async def load(self, name: str, parameters: Mapping[str, Any]) -> None:
            self.asked.append(("load", name))

        async def unload(self, name: str, parameters: Mapping[str, Any]) -> None:
            self.asked.append(("unload", name))

    async def run(change: Callable[[Server], Awaitable[None]], server: Server) -> None:
        await change(server)

    repository = Repository()
    asyncio.run(run(lambda server: server.load("echo", {}), Server(repository)))
    asyncio.run(run(lambda server: server.unload("echo", {}), Server(repository)))
    assert repository.asked == [("load", "echo"), ("unload", "echo")]
    with pytest.raises(RequestError, match="does not load or unload models on request"):
        asyncio.run(run(lambda server: server.load("echo", {}), Server()))
