"""Whether a request to the webhook is a delivery of MLflow's that has not come before.

MLflow signs as Standard Webhooks has it: HMAC-SHA256 with the secret over `<delivery id>.<time>.<body>`, in
the header X-MLflow-Signature as `v1,<base64>`, beside X-MLflow-Delivery-Id and X-MLflow-Timestamp. See
mlflow/webhooks/delivery.py and https://www.standardwebhooks.com. Only ids of deliveries with a right
signature are remembered, and only as long as their time would be accepted.
"""

import base64
import hashlib
import hmac
import json
import math
import re
import threading
from collections.abc import Mapping
from typing import NamedTuple

from raystack.storage import Storage

SIGNATURE, TIME, ID = "x-mlflow-signature", "x-mlflow-timestamp", "x-mlflow-delivery-id"
VERSION = "v1"
MOST = 2000
"""Ids that are remembered at a time; with more of them the webhook asks MLflow to come again."""
ID_LENGTH = 128
FILE = "deliveries.json"


class Answer(NamedTuple):
    """The answer to a delivery."""

    status: int
    why: str
    wakes: bool = False
    """Whether the alias has to be looked at."""


ACCEPTED = Answer(202, "accepted", wakes=True)


class Deliveries:
    """Deliveries to one webhook; those that came are remembered in a file of the storage.

    For several threads.
    """

    def __init__(self, secret: str, tolerance_s: float, storage: Storage) -> None:
        self._secret, self._tolerance_s, self._storage = secret.encode(), tolerance_s, storage
        self._lock = threading.Lock()
        self._seen = _read(storage)

    def answer(self, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
        """Decide on a request: its headers by lower-case names, its body, and the time."""
        identity, at, signature = (headers.get(name, "") for name in (ID, TIME, SIGNATURE))
        if not (identity and at and signature):
            return Answer(401, "is not signed")
        if not signed(self._secret, identity, at, body, signature):
            return Answer(401, "has a wrong signature")
        # From here on it is MLflow's own.
        if not re.fullmatch(r"\d{1,12}", at) or len(identity) > ID_LENGTH:
            return Answer(400, "has no time, or an id that is too long")
        if abs(age_s := now - int(at)) > self._tolerance_s:
            of = "old" if age_s > 0 else "ahead of the time"
            return Answer(400, f"is {abs(age_s):.0f} s {of}, and may be {self._tolerance_s:g}")
        if not _is_event(body):
            return Answer(400, "is no event of MLflow's")
        return self._once(identity, int(at), now)

    def _once(self, identity: str, at: int, now: float) -> Answer:
        with self._lock:
            kept = {name: time for name, time in self._seen.items() if now - time <= self._tolerance_s}
            if identity in kept:
                return Answer(409, "came before")
            if len(kept) >= MOST:
                return Answer(503, f"is one of more than {MOST} in {self._tolerance_s:g} s")
            self._seen = {**kept, identity: at}
            # Before the answer: after it MLflow does not come again.
            self._storage.write(FILE, json.dumps(self._seen))
        return ACCEPTED


def sign(secret: bytes, identity: str, at: str, body: bytes) -> str:
    """Return the signature of a delivery."""
    digest = hmac.new(secret, f"{identity}.{at}.".encode() + body, hashlib.sha256).digest()
    return f"{VERSION},{base64.b64encode(digest).decode()}"


def signed(secret: bytes, identity: str, at: str, body: bytes, signature: str) -> bool:
    """Return whether one of the signatures, separated by spaces, is right; in constant time."""
    right = sign(secret, identity, at, body).encode()
    given = signature.encode("utf-8", "replace").split(b" ")
    return any(hmac.compare_digest(right, each) for each in given)


def _is_event(body: bytes) -> bool:
    try:
        event = json.loads(body)
        return isinstance(event["entity"], str) and isinstance(event["data"], dict)
    except (ValueError, KeyError, TypeError):
        return False


def _read(storage: Storage) -> dict[str, int]:
    """Return the ids that came; none if the file is not there or damaged, as times refuse old ones too."""
    try:
        seen = json.loads(storage.read(FILE))
        return {str(name): int(at) for name, at in seen.items() if math.isfinite(at)}
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        return {}
