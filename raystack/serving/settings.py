"""Trace and log settings as Triton's clients read and write them.

They are kept and answered, and change nothing here: traces and logs of a served model are set in its config.
"""

from collections.abc import Mapping
from typing import Any

from raystack.errors import Problem, nearest
from raystack.serving.protocol import RequestError
from raystack.serving.protocol.refusal import short

Value = bool | int | str | list[str]

TRACE: Mapping[str, Value] = {
    "trace_file": "",
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_mode": "opentelemetry",
}
LOG: Mapping[str, Value] = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}
LEVELS = ("OFF", "TIMESTAMPS", "TENSORS")


class TraceSettings:
    """Values of the server, and of the models that have their own."""

    def __init__(self) -> None:
        self._server = dict(TRACE)
        self._models: dict[str, dict[str, Value]] = {}

    def get(self, model: str | None = None) -> dict[str, Value]:
        """Return the values that hold for a model; for None, the server's."""
        return {**self._server, **self._models.get(model, {})} if model else dict(self._server)

    def update(self, changes: Mapping[str, Any], model: str | None = None) -> dict[str, Value]:
        """Set values and return all. None takes a value back to the server's, a server's to the default.

        Raises RequestError if a setting or its value is not Triton's.
        """
        read = {name: _trace(name, value) for name, value in changes.items()}
        own = self._models.setdefault(model, {}) if model else self._server
        for name, value in read.items():
            if value is not None:
                own[name] = value
            elif model:
                own.pop(name, None)
            else:
                own[name] = TRACE[name]
        return self.get(model)


class LogSettings:
    """Values of the server."""

    def __init__(self) -> None:
        self._values = dict(LOG)

    def get(self) -> dict[str, Value]:
        """Return all values."""
        return dict(self._values)

    def update(self, changes: Mapping[str, Any]) -> dict[str, Value]:
        """Set values and return all. Raises RequestError if a setting or its value is not Triton's."""
        self._values.update({name: _log(name, value) for name, value in changes.items()})
        return self.get()


def _trace(name: str, value: Any) -> Value | None:
    _known(name, TRACE)
    if value is None:
        return None
    if name == "trace_level":
        levels = value if isinstance(value, list) else [value]
        if not levels or any(level not in LEVELS for level in levels):
            raise _wrong(name, f"a list of {', '.join(LEVELS)}", value)
        return [str(level) for level in levels]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if type(value) not in (str, int):
        raise _wrong(name, "a string", value)
    text = str(value)
    if name in ("trace_rate", "trace_count", "log_frequency") and not _whole(text):
        raise _wrong(name, "a whole number", value)
    return text


def _log(name: str, value: Any) -> Value:
    default = _known(name, LOG)
    if name == "log_file":
        raise RequestError(Problem(name, rule="cannot be set by a client"))
    if type(value) is not type(default) or (isinstance(value, int) and value < 0):
        kind = {bool: "true or false", int: "a whole number from 0", str: "a string"}[type(default)]
        raise _wrong(name, kind, value)
    if name == "log_format" and value not in ("default", "ISO8601"):
        raise _wrong(name, "default or ISO8601", value)
    return value


def _whole(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 20


def _known(name: str, known: Mapping[str, Value]) -> Value:
    if name not in known:
        close = nearest(name, known)
        raise RequestError(
            Problem(
                name[:80],
                rule=f"the settings are {', '.join(known)}",
                remedy=f"did you mean '{close}'?" if close else None,
            )
        )
    return known[name]


def _wrong(name: str, rule: str, value: Any) -> RequestError:
    return RequestError(Problem(name, rule=f"should be {rule}", got=short(value)))
