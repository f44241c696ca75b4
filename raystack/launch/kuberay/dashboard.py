"""The log of a driver that no pod's log has. In: a Client and an Observed RayJob. Out: its lines, from the dashboard of its cluster."""

import json
import time
import urllib.request
from collections.abc import Iterator

from raystack.errors import LaunchError, Problem
from raystack.launch.kuberay.client import Client
from raystack.launch.kuberay.connect import DIRECT, connect
from raystack.launch.kuberay.observed import Observed, head, is_ready

ANSWER_S = 10.0
LOOK_S = 2.0
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


def has_driver(observed: Observed) -> bool:
    """Whether a job was submitted, and a dashboard is up that knows of it."""
    first = head(observed.pods)
    return bool(observed.status.get("jobId")) and first is not None and is_ready(first)


def driver(client: Client, observed: Observed, *, following: bool) -> Iterator[str]:
    """Lines of the driver's log, `following` until it ends. A line that is not whole yet comes when it is."""
    with connect(client, observed.kind, observed.name) as (door,):
        headers = {"Authorization": f"Bearer {door.token}"} if door.token else {}
        url, told = f"{door.url}/api/jobs/{observed.status['jobId']}", 0
        while True:
            ended = not following or _ask(url, headers).get("status") in ENDED
            text = _ask(f"{url}/logs", headers)["logs"]
            end = len(text) if ended else text.rfind("\n") + 1
            yield from text[told:end].splitlines()
            told = end
            if ended:
                return
            time.sleep(LOOK_S)


def _ask(url: str, headers: dict[str, str]) -> dict[str, str]:
    try:
        with DIRECT.open(urllib.request.Request(url, headers=headers), timeout=ANSWER_S) as answer:
            told: dict[str, str] = json.load(answer)
            return told
    except (OSError, ValueError) as error:  # URLError is an OSError
        raise LaunchError(Problem("dashboard", rule=f"it does not tell the driver's log: {error}", remedy="see the head's log")) from error
