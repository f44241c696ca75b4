"""What a look at drift, data and metrics finds, what receivers are told, and the past once more."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from raystack import config
from raystack.config.automation import Automation, Events
from raystack.plan.automation import AutomationPlan, plan_automation
from raystack.rollout.automation.past import GUESS_S, rehearse
from raystack.rollout.automation.record import Entry, Record
from raystack.rollout.automation.sources import Sources, fingerprint, indices
from raystack.rollout.automation.telling import Teller
from raystack.serving import cloudevents
from raystack.serving.cloudevents import DRIFT_DETECTED, DRIFT_ENDED
from raystack.storage import Storage

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC).timestamp()


def drift(kind: str, at: float, tensor: str = "x", version: str = "1") -> bytes:
    data = {"model": "m", "version": version, "input": tensor, "index": 0.4, "window_s": 60}
    source = f"/v2/models/m/versions/{version}"
    return cloudevents.event(kind, source, f"{tensor}{at}", at, data, {"subject": tensor}).json + b"\n"


def plan_of(tmp_path: Path, **section: Any) -> AutomationPlan:
    given = {"then": "nothing", "cooldown_s": 0, **section}
    automation = Automation.model_validate(given, strict=False)
    names = [f"experiment.storage={tmp_path}", "tracking=local", "registry.model=m", "registry.alias=a"]
    return plan_automation(config.load(TINY, names).model_copy(update={"automation": automation}))


def test_drift_of_all_replicas_is_read_and_what_has_ended_is_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "drift"
    folder.mkdir()
    automation = plan_of(tmp_path, triggers={"drift": {"events": str(folder)}}).automation
    sources = Sources(automation)
    assert sources.look(NOON).drifted == ()
    (folder / "m-1.drift.jsonl.1").write_bytes(drift(DRIFT_DETECTED, NOON) + drift(DRIFT_DETECTED, NOON, "y"))
    (folder / "m-1.drift.jsonl").write_bytes(
        b'{"torn": \n' + drift(DRIFT_ENDED, NOON + 60) + b'{"type": "io.rays'
    )
    (folder / "m-2.drift.jsonl").write_bytes(drift(DRIFT_DETECTED, NOON + 5, "z"))
    found = {each.what.partition(" of ")[0]: each.since for each in sources.look(NOON).drifted}
    assert found == {"input 'y'": NOON, "input 'z'": NOON + 5}
    with open(folder / "m-2.drift.jsonl", "ab") as file:
        file.write(drift(DRIFT_ENDED, NOON + 9, "z"))
    assert [each.since for each in sources.look(NOON).drifted] == [NOON]


def test_a_drift_that_several_replicas_see_is_one(tmp_path: Path) -> None:
    automation = plan_of(tmp_path, triggers={"drift": {"events": str(tmp_path / "d")}}).automation
    (tmp_path / "d").mkdir()
    for replica, at in enumerate((NOON, NOON + 50, NOON + 100, NOON + 900)):
        (tmp_path / "d" / f"m-{replica}.jsonl").write_bytes(drift(DRIFT_DETECTED, at))
        (found,) = Sources(automation).look(NOON).drifted
        assert found.since == (NOON if at < NOON + 900 else at), "the last one is another drift"


def test_data_that_comes_changes_or_goes_is_other_data(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    seen = [fingerprint(Storage(str(folder)).found())]
    for act in (
        lambda: (folder / "a").write_text("1"),
        lambda: (folder / "a").write_text("12"),
        lambda: (folder / "b").write_text("1"),
        lambda: (folder / "a").unlink(),
    ):
        act()
        seen.append(fingerprint(Storage(str(folder)).found()))
    assert len(set(seen)) == 5
    assert fingerprint(Storage(str(folder)).found()) == seen[-1]


def test_indices_at_the_threshold_are_read_from_prometheus_text() -> None:
    text = """# TYPE ray_raystack_drift gauge
ray_raystack_drift{SessionName="s",model="m",side="input",tensor="x",version="1"} 0.25
ray_raystack_drift{model="m",side="input",tensor="y",version="1"} 0.2
raystack_drift{model="m",side="output",tensor="z",version="1"} 1.5e0
raystack_drift_other{model="m"} 9
"""
    assert [each.key for each in indices(text, 0.25)] == ["m 1 input x", "m 1 output z"]


class Receiver:
    """A receiver of events, which may be away."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str, str]] = []
        self.away = False
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(503 if receiver.away else 202)
                self.end_headers()
                if not receiver.away:
                    receiver.got.append((self.path, self.headers["content-type"], body["id"]))

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


def test_receivers_get_each_step_also_those_of_a_process_that_is_gone(
    receiver: Receiver, tmp_path: Path
) -> None:
    dapr = {"url": receiver.url, "pubsub": "bus", "topic": "models"}
    to = Events.model_validate({"to": str(tmp_path / "events"), "dapr": dapr})
    record = Record(str(tmp_path / "record"))

    def told(*steps: str) -> None:
        teller = Teller(to, "digits", record)
        for number, step in enumerate(steps):
            teller.tell(record.add(Entry(NOON + number, step, "something", "0001", id=f"0001-{step}")))
        teller.deliver()
        teller.deliver(last=True)

    receiver.away = True
    told("began", "started")
    assert receiver.got == []
    receiver.away = False
    told("trained")
    assert [identity for _, _, identity in receiver.got] == ["0001-began", "0001-started", "0001-trained"]
    assert receiver.got[0][:2] == ("/v1.0/publish/bus/models", cloudevents.STRUCTURED)
    lines = (tmp_path / "events" / "digits.automation.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["type"] for line in lines]
    assert kinds[-1] == "io.raystack.automation.trained"
    told()
    assert len(receiver.got) == 3


@pytest.fixture
def rehearsed(tmp_path: Path) -> Callable[..., list[tuple[float, str]]]:
    def run(**section: Any) -> list[tuple[float, str]]:
        assumed, entries = rehearse(plan_of(tmp_path, **section), NOON)
        assert f"{GUESS_S:.0f} s, as none is recorded" in assumed
        return [(round((entry.at - NOON) / 3600, 1), entry.step) for entry in entries]

    return run


def test_the_dry_run_goes_through_the_past_and_leaves_no_trace(
    rehearsed: Callable[..., list[tuple[float, str]]], tmp_path: Path
) -> None:
    events = tmp_path / "drift.jsonl"
    events.write_bytes(
        drift(DRIFT_DETECTED, NOON - 10 * 3600) + drift(DRIFT_DETECTED, NOON - 9.9 * 3600, "y")
    )
    section = {"triggers": {"drift": {"events": str(events)}}, "quiet": ["01:00-05:00"]}
    steps = rehearsed(**section)
    assert [step for _, step in steps] == [
        "triggered",
        "held",
        "began",
        "started",
        "trained",
        "passed",
        "ended",
    ]
    assert [at for at, step in steps if step in ("triggered", "began")] == [-10.0, -7.0]
    assert not (tmp_path / "automation").exists()


def test_the_dry_run_of_a_schedule_goes_through_the_last_week(
    rehearsed: Callable[..., list[tuple[float, str]]],
) -> None:
    steps = rehearsed(triggers={"schedule": "0 3 * * *"}, budget={"runs_per_day": 1})
    assert [step for _, step in steps].count("began") == 7
