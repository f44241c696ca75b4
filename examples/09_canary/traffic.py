"""Steady load: images of the test part over a few connections, and what came back for each."""

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import aiohttp
from sklearn.datasets import load_digits

TEST_EVERY = 5
CONNECTIONS = 4
RATE = 60
"""Requests a second of all connections."""
LONGEST = aiohttp.ClientTimeout(total=30)


class Answer(NamedTuple):
    """What came back for one request."""

    at: float
    """Seconds since 1970."""
    version: str
    """Number of the version that answered; empty if the request failed."""
    right: bool


@contextmanager
def load(url: str) -> Iterator[list[Answer]]:
    """Send requests for the time of the block; yield the answers so far."""
    answers: list[Answer] = []
    over = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_ask(url, answers, over)), name="load")
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()


async def _ask(url: str, answers: list[Answer], over: threading.Event) -> None:
    digits = load_digits()
    images, truths = digits.images[::TEST_EVERY] / 16, digits.target[::TEST_EVERY]
    requests = [(_body(image), int(truth)) for image, truth in zip(images, truths, strict=True)]
    async with aiohttp.ClientSession(timeout=LONGEST) as session:

        async def connection(number: int) -> None:
            due = time.monotonic() + number / RATE
            while not over.is_set():
                await asyncio.sleep(due - time.monotonic())
                body, truth = random.choice(requests)
                answers.append(await _answer(session, url, body, truth))
                due = max(due + CONNECTIONS / RATE, time.monotonic())

        await asyncio.gather(*map(connection, range(CONNECTIONS)))


async def _answer(session: aiohttp.ClientSession, url: str, body: Any, truth: int) -> Answer:
    try:
        async with session.post(f"{url}/infer", json=body) as response:
            response.raise_for_status()
            answer = await response.json()
    except (aiohttp.ClientError, TimeoutError):
        return Answer(time.time(), "", False)
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    return Answer(time.time(), answer["model_version"], outputs["digit"][0] == truth)


def _body(image: Any) -> Any:
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 8, 8], "data": image.ravel().tolist()}
    return {"inputs": [tensor]}
