"""The webhook takes what MLflow has signed, once and in time, and an alias that moves begins one rollout."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from raystack import config
from raystack.config.follow import Follow, Webhook
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, LaunchError, Problem, ServingError
from raystack.plan.follow import FollowPlan
from raystack.rollout.follow import deliveries as of_deliveries
from raystack.rollout.follow import webhook as of_webhook
from raystack.rollout.follow.deliveries import Deliveries, sign
from raystack.rollout.follow.watch import Watch
from raystack.rollout.follow.webhook import listening
from raystack.storage import Storage

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"
SECRET = "whsec-of-a-test"
BODY = json.dumps(
    {
        "entity": "model_version_alias",
        "action": "created",
        "timestamp": "2026-11-27T12:00:00+00:00",
        "data": {"name": "m", "alias": "champion", "version": "3"},
    }
).encode()


def headers(identity: str, at: float, body: bytes = BODY, secret: str = SECRET) -> dict[str, str]:
    signature = sign(secret.encode(), identity, str(int(at)), body)
    return {of_deliveries.ID: identity, of_deliveries.TIME: str(int(at)), of_deliveries.SIGNATURE: signature}


def test_the_signature_is_mlflow_s() -> None:
    from mlflow.webhooks.constants import (
        WEBHOOK_DELIVERY_ID_HEADER,
        WEBHOOK_SIGNATURE_HEADER,
        WEBHOOK_TIMESTAMP_HEADER,
    )
    from mlflow.webhooks.delivery import _generate_hmac_signature

    names = (WEBHOOK_DELIVERY_ID_HEADER, WEBHOOK_TIMESTAMP_HEADER, WEBHOOK_SIGNATURE_HEADER)
    assert tuple(map(str.lower, names)) == (of_deliveries.ID, of_deliveries.TIME, of_deliveries.SIGNATURE)
    theirs = _generate_hmac_signature(SECRET, "id-1", "1700000000", BODY.decode())
    assert sign(SECRET.encode(), "id-1", "1700000000", BODY) == theirs


@pytest.mark.parametrize(
    ("sent", "body", "status"),
    [
        (headers("a", 1000), BODY, 202),
        ({}, BODY, 401),
        (headers("a", 1000, secret="another"), BODY, 401),
        (headers("a", 1000), BODY.replace(b'"3"', b'"4"'), 401),
        ({**headers("a", 1000), of_deliveries.ID: "b"}, BODY, 401),
        ({**headers("a", 1000), of_deliveries.TIME: "1001"}, BODY, 401),
        (headers("a", 600), BODY, 400),
        (headers("a", 1400), BODY, 400),
        (headers("a", 1000, b"[]"), b"[]", 400),
        (headers("seen", 1000), BODY, 409),
    ],
    ids=[
        "genuine",
        "unsigned",
        "forged",
        "body changed",
        "id changed",
        "time changed",
        "late",
        "early",
        "no event",
        "replayed",
    ],
)
def test_each_delivery_has_its_answer(tmp_path: Path, sent: dict[str, str], body: bytes, status: int) -> None:
    first = Deliveries(SECRET, 300, Storage(str(tmp_path)))
    assert first.answer(headers("seen", 990), BODY, 995).status == 202
    # Another process remembers what came to the first.
    answer = Deliveries(SECRET, 300, Storage(str(tmp_path))).answer(sent, body, 1000)
    assert (answer.status, answer.wakes) == (status, status == 202)


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_deliveries, "MOST", 2)
    deliveries = Deliveries(SECRET, 300, Storage(str(tmp_path)))
    statuses = [deliveries.answer(headers(name, 1000), BODY, 1000).status for name in "abc"]
    assert statuses == [202, 202, 503]
    assert deliveries.answer(headers("c", 1400), BODY, 1400).status == 202
    assert list(json.loads((tmp_path / of_deliveries.FILE).read_text())) == ["c"]


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def woken(tmp_path: Path, port: int) -> Iterator[threading.Event]:
    woken = threading.Event()
    settings = Webhook(port=port, path="/hook", secret="secret:env:UNUSED")
    with listening(settings, Deliveries(SECRET, 300, Storage(str(tmp_path))), woken.set):
        yield woken


def ask(port: int, sent: dict[str, str], body: bytes | None = BODY, path: str = "/hook") -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, sent)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_over_http_only_a_genuine_delivery_wakes(
    port: int, woken: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    assert ask(port, {}) == 401
    assert ask(port, headers("a", now), path="/") == 404
    assert ask(port, headers("a", now), body=None) == 405
    for size in (of_webhook.BODY_BYTES + 1, of_webhook.UNREAD_BYTES):
        assert ask(port, {}, b" " * size) == 413, "a client sees the answer, though its body is not wanted"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as endless:
        endless.sendall(b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 16000001\r\n\r\n")
        assert endless.recv(100).startswith(b"HTTP/1.1 413")
    monkeypatch.setattr(of_webhook, "BODY_S", 0.3)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
        slow.sendall(b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
    monkeypatch.undo()
    assert not woken.is_set()
    assert ask(port, headers("a", now)) == 202
    assert woken.is_set()
    assert ask(port, headers("a", now)) == 409


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        settings = Webhook(port=other.getsockname()[1], secret="secret:env:UNUSED")
        with (
            pytest.raises(LaunchError, match=r"rollout\.follow\.webhook\.port: cannot be listened at"),
            listening(settings, Deliveries(SECRET, 300, Storage(str(tmp_path))), lambda: None),
        ):
            pass


class Alias:
    """An alias, and what was begun because it moved."""

    def __init__(self, folder: Path) -> None:
        self.version: str | None = None
        self.error: Exception | None = None
        self.begun: list[str] = []
        self.said: list[str] = []
        self._plan = FollowPlan(
            "m", "champion", Follow(), Tracking(), str(folder), True, config.load(TINY, [])
        )

    def watch(self) -> Watch:
        return Watch(self._plan, self._begin, self.said.append, self._find)

    def _find(self) -> str | None:
        if isinstance(self.error, ServingError):
            raise self.error
        return self.version

    def _begin(self, version: str) -> str:
        self.begun.append(version)
        if self.error is not None:
            raise self.error
        return "begun"


def test_an_alias_that_moves_begins_once_also_in_another_process(tmp_path: Path) -> None:
    alias = Alias(tmp_path)
    watch = alias.watch()
    watch.look()
    alias.version = "models:/m/1"
    watch.look()
    assert alias.begun == [], "what is there at first is served"
    alias.version = "models:/m/2"
    watch.look()
    watch.look()
    again = alias.watch()
    again.look()
    assert alias.begun == ["models:/m/2"]
    alias.version = None
    again.look()
    alias.version = "models:/m/1"
    again.look()
    assert alias.begun == ["models:/m/2", "models:/m/1"]


def test_a_cluster_or_registry_that_is_away_is_asked_again_and_a_bad_version_is_not(tmp_path: Path) -> None:
    alias = Alias(tmp_path)
    watch = alias.watch()
    alias.version = "models:/m/1"
    watch.look()
    alias.version, alias.error = "models:/m/2", LaunchError(Problem("target.address", rule="is away"))
    watch.look()
    alias.error = ServingError(Problem("tracking.uri", rule="is away"))
    alias.watch().look()
    alias.error = None
    alias.watch().look()
    assert alias.begun == ["models:/m/2"] * 2
    alias.version, alias.error = "models:/m/3", ConfigError(Problem("gates", rule="refused"))
    again = alias.watch()
    again.look()
    again.look()
    assert alias.begun[2:] == ["models:/m/3"]
    assert alias.said[-1] == "models:/m/3: not begun: gates: refused"
