"""Requests at a steady rate to one model until the standard input ends; a line of JSON for each answer.

python steady_load.py URL PER_SECOND CONNECTIONS FILE. Every second request has a key, the header `x-user`.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import httpx

KEYS = 200
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
WAITS_S = 120.0


async def ask(client: httpx.AsyncClient, url: str, number: int) -> dict[str, Any]:
    """What came of a request: when, its key, and the version with whether it is right, or what is wrong."""
    key = f"user {number // 2 % KEYS}" if number % 2 else None
    row: dict[str, Any] = {"sent": time.time(), "key": key}
    try:
        answer = await client.post(url, json=BODY, headers={"x-user": key} if key else {})
        row["answered"] = time.time()
        if answer.status_code == 200:
            found = answer.json()
            return {**row, "version": found["model_version"], "right": found["outputs"][0]["data"] == [3.0]}
        return {**row, "error": f"{answer.status_code} {answer.text}"}
    except httpx.HTTPError as error:
        return {**row, "answered": time.time(), "error": repr(error)}


async def steady(url: str, per_s: float, connections: int, file: TextIO) -> None:
    """Send until the input ends. A connection whose answer is late sends the next request later."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, over.set)
    every_s = connections / per_s

    async def connection(first: int) -> None:
        number, at = first, time.monotonic() + every_s * first / connections
        async with httpx.AsyncClient(timeout=WAITS_S) as client:
            while not over.is_set():
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                file.write(json.dumps(await ask(client, url, number)) + "\n")
                number, at = number + connections, max(at + every_s, time.monotonic())

    await asyncio.gather(*(connection(first) for first in range(connections)))


if __name__ == "__main__":
    to, rate, many, path = sys.argv[1:]
    with Path(path).open("w", encoding="utf-8", buffering=1) as lines:
        asyncio.run(steady(to, float(rate), int(many), lines))
