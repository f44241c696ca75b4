"""Requests that arrive together share a forward pass and nothing else."""

import asyncio
import time

import numpy as np
import pytest

from raystack.serving.batcher import KINDS, Answer, Arrays, Batcher


class Doubler:
    """Doubles `x`; notes the samples of each pass, takes `pass_s` and refuses 13."""

    def __init__(self, pass_s: float = 0.0) -> None:
        self.sizes: list[int] = []
        self.firsts: list[list[float]] = []
        """The values of each pass."""
        self.pass_s = pass_s

    def __call__(self, inputs: Arrays) -> Arrays:
        x = inputs["x"]
        self.sizes.append(len(x))
        self.firsts.append(x[:, 0].tolist())
        time.sleep(self.pass_s)
        if (x == 13).any():
            raise ValueError("thirteen")
        return {"y": x * 2}


def samples(*values: float, width: int = 1) -> Arrays:
    return {"x": np.repeat(np.array(values, np.float32)[:, None], width, axis=1)}


async def ask(batcher: Batcher, *requests: Arrays) -> list[Answer | BaseException]:
    return await asyncio.gather(
        *(batcher.predict(request, len(request["x"])) for request in requests), return_exceptions=True
    )


def first(answer: Answer | BaseException) -> list[float]:
    assert isinstance(answer, Answer)
    values: list[float] = answer.outputs["y"][:, 0].tolist()
    return values


@pytest.mark.parametrize("wait_s", [0.0, 0.005])
def test_requests_that_arrive_together_share_a_pass(wait_s: float) -> None:
    model = Doubler()
    answers = asyncio.run(ask(Batcher(model, 8, wait_s), samples(1), samples(2, 3), samples(4)))
    assert model.sizes == [4]
    assert [first(answer) for answer in answers] == [[2], [4, 6], [8]]


def test_samples_are_counted_and_order_is_kept() -> None:
    model = Doubler()
    answers = asyncio.run(ask(Batcher(model, 4, 0.001), samples(1, 2, 3), samples(4, 5), samples(6)))
    assert model.sizes == [3, 3]
    assert [first(answer) for answer in answers] == [[2, 4, 6], [8, 10], [12]]


def test_a_request_larger_than_a_batch_takes_several_passes() -> None:
    model = Doubler()
    answers = asyncio.run(ask(Batcher(model, 4, 0.001), samples(*range(10))))
    assert model.sizes == [4, 4, 2]
    assert first(answers[0]) == [2.0 * value for value in range(10)]


def test_a_full_batch_does_not_wait() -> None:
    async def run() -> float:
        started = time.perf_counter()
        await ask(Batcher(Doubler(), 2, 30.0), samples(1), samples(2))
        return time.perf_counter() - started

    assert asyncio.run(run()) < 5


def test_what_arrives_while_the_model_is_busy_joins_the_next_pass() -> None:
    async def run(model: Doubler) -> None:
        batcher = Batcher(model, 8, 0.0)
        early = asyncio.create_task(ask(batcher, samples(1)))
        await asyncio.sleep(0.05)
        late = []
        for value in range(4):
            late.append(asyncio.create_task(ask(batcher, samples(value))))
            await asyncio.sleep(0.01)
        await asyncio.gather(early, *late)

    model = Doubler(pass_s=0.3)
    asyncio.run(run(model))
    assert model.sizes == [1, 4]


def test_one_failure_is_one_request() -> None:
    model = Doubler()
    answers = asyncio.run(ask(Batcher(model, 8, 0.001), samples(1), samples(13), samples(3)))
    assert [first(answers[0]), first(answers[2])] == [[2], [6]]
    assert isinstance(answers[1], ValueError)


def test_requests_of_other_shapes_are_not_joined() -> None:
    model = Doubler()
    answers = asyncio.run(ask(Batcher(model, 8, 0.001), samples(1), samples(2, width=3), samples(3)))
    assert sorted(model.sizes) == [1, 2]
    assert [first(answer) for answer in answers] == [[2], [4], [6]]


def test_a_request_that_was_given_up_is_not_computed() -> None:
    async def run(model: Doubler) -> None:
        batcher = Batcher(model, 8, 0.05)
        gone = batcher.predict(samples(1), 1)
        stays = batcher.predict(samples(2), 1)
        gone.cancel()
        assert first(await stays) == [4]

    model = Doubler()
    asyncio.run(run(model))
    assert model.sizes == [1]


def test_many_batches_in_a_row() -> None:
    model = Doubler()
    answers = asyncio.run(ask(Batcher(model, 1, 0.0), *(samples(value) for value in range(100, 2100))))
    assert [first(answer)[0] for answer in answers] == [2.0 * value for value in range(100, 2100)]


def test_a_lone_client_never_waits() -> None:
    async def run() -> float:
        batcher = Batcher(Doubler(), 8, 30.0)
        started = time.perf_counter()
        for value in range(100, 200):
            assert first(await batcher.predict(samples(value), 1)) == [2.0 * value]
        return time.perf_counter() - started

    assert asyncio.run(run()) < 5


def test_where_several_came_before_one_waits_for_the_others() -> None:
    async def client(batcher: Batcher, at: int) -> None:
        for _ in range(10):
            await batcher.predict(samples(at), 1)
            await asyncio.sleep(0.002 * at)

    async def run(model: Doubler) -> None:
        batcher = Batcher(model, 4, 10.0)
        await asyncio.gather(*(client(batcher, at) for at in range(4)))

    model = Doubler(pass_s=0.1)
    asyncio.run(run(model))
    assert sum(model.sizes) == 40
    assert model.sizes.count(4) >= 8, model.sizes


def test_one_waits_for_others_no_longer_than_it_may() -> None:
    async def run(wait_s: float, pass_s: float) -> float:
        batcher = Batcher(Doubler(pass_s), 8, wait_s)
        await ask(batcher, samples(1), samples(2))
        return (await batcher.predict(samples(3), 1)).wait_s

    assert 0.04 < asyncio.run(run(wait_s=0.05, pass_s=0.3)) < 0.25
    assert asyncio.run(run(wait_s=30.0, pass_s=0.05)) < 5


def test_parts_of_large_requests_take_turns_with_other_requests() -> None:
    async def run(model: Doubler) -> list[str]:
        batcher, order = Batcher(model, 4, 0.0), []

        async def one(name: str, request: Arrays) -> None:
            answer = await batcher.predict(request, len(request["x"]))
            assert first(answer) == [2 * value for value in request["x"][:, 0].tolist()]
            order.append(name)

        await asyncio.gather(
            one("large", samples(*range(100, 140))),
            one("larger", samples(*range(200, 280))),
            one("small", samples(1)),
            one("last", samples(2, 3)),
        )
        return order

    model = Doubler()
    assert asyncio.run(run(model)) == ["small", "last", "large", "larger"]
    assert [passed[0] // 100 for passed in model.firsts[:2]] == [1, 2]
    assert model.firsts[2][:3] == [1, 2, 3]


def test_a_large_request_fails_whole_and_alone() -> None:
    model = Doubler()
    batcher = Batcher(model, 2, 0.0)
    answers = asyncio.run(ask(batcher, samples(*range(10, 20)), samples(1)))
    assert isinstance(answers[0], ValueError)
    assert first(answers[1]) == [2]
    assert [18.0, 19.0] not in model.firsts, "what is left of it was computed"


def test_a_large_request_that_was_given_up_is_not_computed_further() -> None:
    async def run(model: Doubler) -> None:
        batcher = Batcher(model, 2, 0.0)
        gone = batcher.predict(samples(*range(100, 200)), 100)
        await asyncio.sleep(0.2)
        gone.cancel()
        assert first(await batcher.predict(samples(1), 1)) == [2]

    model = Doubler(pass_s=0.05)
    asyncio.run(run(model))
    assert len(model.sizes) < 20


def test_an_answer_says_what_it_took() -> None:
    async def run() -> tuple[Answer, ...]:
        batcher = Batcher(Doubler(pass_s=0.1), 4, 0.0)
        return tuple(
            await asyncio.gather(batcher.predict(samples(1), 1), batcher.predict(samples(*range(7)), 7))
        )

    small, large = asyncio.run(run())
    assert (small.batch, large.batch) == (4, 4)
    assert 0.1 <= small.compute_s < large.compute_s
    assert large.compute_s >= 0.2
    assert small.wait_s < 0.1


def test_passes_that_ended_are_counted_by_their_samples() -> None:
    batcher = Batcher(Doubler(), 4, 0.001)
    asyncio.run(ask(batcher, samples(*range(100, 110)), samples(13), samples(1)))
    assert {size: passes.count for size, passes in batcher.passes.items()} == {4: 2, 2: 1, 1: 1}


def test_more_shapes_than_are_remembered_are_served() -> None:
    async def run(batcher: Batcher) -> None:
        for _ in range(2):
            widths = range(100, 100 + 2 * KINDS)
            answers = await ask(batcher, *(samples(width, width=width) for width in widths))
            assert [first(answer) for answer in answers] == [[2.0 * width] for width in widths]

    asyncio.run(run(Batcher(Doubler(), 8, 0.0)))
