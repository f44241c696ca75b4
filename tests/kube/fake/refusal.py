"""What the API server answers when it refuses: in goes what is wrong, out comes an exception that knows its
Status object.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fake.kinds import Kind, Object


@dataclass(frozen=True)
class Cause:
    """One field that is wrong."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class RefusedError(Exception):
    """Becomes a response with this code and a Status as its body."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "code": code,
        }
        if reason:
            self.status["reason"] = reason
        if details:
            self.status["details"] = details


def not_found(kind: Kind, name: str) -> RefusedError:
    """There is no such object."""
    return RefusedError(
        404, "NotFound", f'{kind.resource} "{name}" not found', name=name, group=kind.group, kind=kind.plural
    )


def no_path() -> RefusedError:
    """There is no such address."""
    return RefusedError(404, "NotFound", "the server could not find the requested resource")


def exists(kind: Kind, name: str) -> RefusedError:
    """There is one already."""
    return RefusedError(
        409,
        "AlreadyExists",
        f'{kind.resource} "{name}" already exists',
        name=name,
        group=kind.group,
        kind=kind.plural,
    )


def stale(kind: Kind, name: str) -> RefusedError:
    """The resourceVersion that came along is not the present one."""
    why = "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return RefusedError(409, "Conflict", message, name=name, group=kind.group, kind=kind.plural)


def malformed(message: str) -> RefusedError:
    """The request cannot be read."""
    return RefusedError(400, "BadRequest", message)


def invalid(kind: Kind, name: str, causes: Sequence[Cause]) -> RefusedError:
    """The object breaks its schema."""
    texts = [str(cause) for cause in causes]
    what = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    message = f'{what} "{name}" is invalid: {texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"}'
    listed = [{"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes]
    return RefusedError(422, "Invalid", message, name=name, group=kind.group, kind=kind.kind, causes=listed)


def expired(config: int, oldest: int) -> RefusedError:
    """The history that a watch asks for is gone."""
    return RefusedError(410, "Expired", f"too old resource version: {config} ({oldest})")


def forbidden(kind: Kind, name: str, verb: str, resource: str, namespace: str) -> RefusedError:
    """Whoever asks may not do that."""
    scope = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
    why = f'User "fake" cannot {verb} resource "{resource}" in API group "{kind.group}"{scope}'
    what = f'{kind.resource} "{name}"' if name else kind.resource
    details = {
        key: value for key, value in (("name", name), ("group", kind.group), ("kind", kind.plural)) if value
    }
    return RefusedError(403, "Forbidden", f"{what} is forbidden: {why}", **details)
