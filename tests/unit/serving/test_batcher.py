"""Requests that arrive together share a forward pass and nothing else."""

import asyncio
import time

import numpy as np
import pytest

from raystack.serving.batcher import Answer, Arrays, Batcher


class Doubler:
    """Doubles `x`; notes the samples of each pass, takes `pass_s` and refuses 13."""

    def __init__(self, pass_s: float = 0.0) -> None:
        self.sizes: list[int] = []
        self.pass_s = pass_s

    def __call__(self, inputs: Arrays) -> Arrays:
        x = inputs["x"]
        self.sizes.append(len(x))
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
