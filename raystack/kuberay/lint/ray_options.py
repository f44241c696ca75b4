"""Options of `ray start`, and what is wrong with a value of one.

The operator writes `--key=value`, unquoted, into a line that a shell reads.
"""

import re
import shlex
from collections.abc import Mapping
from typing import Literal

Kind = Literal["switch", "integer", "number", "text", "json", "truth", "choice", "ports"]
Wrong = tuple[str, str | None]
"""What a value should be, and how to write it."""

OPTIONS: Mapping[str, Kind] = {
    "address": "text",
    "autoscaling-config": "text",
    "block": "switch",
    "cgroup-path": "text",
    "dashboard-agent-grpc-port": "integer",
    "dashboard-agent-listen-port": "integer",
    "dashboard-host": "text",
    "dashboard-port": "integer",
    "disable-usage-stats": "switch",
    "enable-object-reconstruction": "switch",
    "enable-resource-isolation": "switch",
    "head": "switch",
    "include-dashboard": "truth",
    "include-log-monitor": "truth",
    "labels": "text",
    "labels-file": "text",
    "log-color": "choice",
    "log-style": "choice",
    "max-worker-port": "integer",
    "memory": "integer",
    "metrics-export-port": "integer",
    "min-worker-port": "integer",
    "no-monitor": "switch",
    "no-redirect-output": "switch",
    "node-ip-address": "text",
    "node-manager-port": "integer",
    "node-name": "text",
    "num-cpus": "integer",
    "num-gpus": "integer",
    "object-manager-port": "integer",
    "object-spilling-directory": "text",
    "object-store-memory": "integer",
    "plasma-directory": "text",
    "port": "integer",
    "proxy-server-url": "text",
    "ray-client-server-port": "integer",
    "ray-debugger-external": "switch",
    "redis-password": "text",
    "redis-shard-ports": "text",
    "redis-username": "text",
    "resources": "json",
    "runtime-env-agent-port": "integer",
    "system-config": "json",
    "system-reserved-cpu": "number",
    "system-reserved-memory": "integer",
    "temp-dir": "text",
    "tracing-startup-hook": "text",
    "verbose": "switch",
    "worker-port-list": "ports",
}
OLD = frozenset(
    (
        "dashboard-grpc-port",
        "gcs-server-port",
        "internal-config",
        "load-code-from-local",
        "lru-evict",
        "num-redis-shards",
        "plasma-store-socket-name",
        "raylet-socket-name",
        "redis-max-clients",
        "redis-max-memory",
        "redis-port",
        "storage",
    )
)
"""Options of older versions of Ray."""
CHOICES: Mapping[str, tuple[str, ...]] = {
    "log-color": ("auto", "false", "true"),
    "log-style": ("auto", "record", "pretty"),
}
TRUTHS: Mapping[str, bool] = {
    **dict.fromkeys(("1", "t", "true", "y", "yes", "on"), True),
    **dict.fromkeys(("0", "f", "false", "n", "no", "off"), False),
}
TAKE_FALSE = frozenset(("log-color", "include-dashboard", "include-log-monitor"))
"""Options that the operator passes on with the value `false`, and leaves out no more."""
SMALLEST_STORE = 75 * 1024 * 1024
HIGH_PORTS = frozenset(("min-worker-port", "max-worker-port", "ray-client-server-port"))


def wrong(name: str, text: str) -> Wrong | None:
    """Return what is wrong with the value of an option, or None."""
    kind, lower = OPTIONS[name], text.lower()
    if lower == "false" and name not in TAKE_FALSE:
        return None
    if kind == "switch":
        return None if lower == "true" else ("takes no value", 'write "true", or drop it')
    # The operator makes a bare `--key` of it.
    if lower == "true" and kind != "truth" and "true" not in CHOICES.get(name, ()):
        return "needs a value", "give one"
    word = _word(text)
    if word is None or (word == "" and kind != "text"):
        return "is one word of a shell", "quote it for the shell, too" if text.strip() else "give it"
    return _wrong_word(name, kind, word)


def _word(text: str) -> str | None:
    """Return the word that a shell reads, or None if it reads several."""
    try:
        words = shlex.split(text)
    except ValueError:
        return None
    return (words or [""])[0] if len(words) <= 1 else None


def _wrong_word(name: str, kind: Kind, word: str) -> Wrong | None:
    if kind == "integer":
        return _wrong_integer(name, word)
    if kind == "ports" and not all(map(_is_high_port, word.split(","))):
        return "is ports from 1024 on, with commas between them", None
    if kind == "number" and not _is_number(word):
        return "is a number", None
    if kind == "truth" and word.lower() not in TRUTHS:
        return "is true or false", None
    if kind == "choice" and word not in CHOICES[name]:
        return f"is one of {', '.join(CHOICES[name])}", None
    return None


def _is_high_port(word: str) -> bool:
    return word.strip().isdecimal() and 1024 <= int(word) <= 65535


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _wrong_integer(name: str, word: str) -> Wrong | None:
    memory = name.endswith("memory")
    if not re.fullmatch(r"\s*[+-]?\d+(_\d+)*\s*", word):
        example = "4294967296" if memory else "4"
        return (
            f"is {'bytes, without a unit' if memory else 'a whole number'}",
            f'write it as e.g. "{example}"',
        )
    number = int(word)
    if number < 0:
        return "is at least 0", None
    if name == "object-store-memory" and 0 < number < SMALLEST_STORE:
        return f"is at least {SMALLEST_STORE}", None
    if name.endswith("port") and number > 65535:
        return "is a port, at most 65535", None
    if name in HIGH_PORTS and 0 < number < 1024:
        return "is a port from 1024 on", None
    return None
