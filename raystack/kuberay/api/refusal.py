"""Errors of the Kubernetes API in the words of raystack.

In: the response to a request. Out: the object in it, or a LaunchError with a Problem for each cause.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from raystack.errors import LaunchError, Problem
from raystack.kuberay.api.kinds import Object
from raystack.kuberay.api.owners import Contested

_UNKNOWN = re.compile(r'(\.[^\s:]+): field not declared in schema|unknown field "([^"]+)"')
"""Messages of server-side apply and of strict validation about a field that is not in the schema."""
ROLE = "have the role changed, or set another context"


class ConflictError(LaunchError):
    """An apply that would change fields set by another manager."""

    def __init__(self, where: str, contested: Sequence[Contested]) -> None:
        super().__init__(
            [Problem(where, rule=f"{each.path} {each.why}", remedy=each.remedy) for each in contested]
        )
        self.where, self.contested = where, tuple(contested)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.where, self.contested)


class ForbiddenError(LaunchError):
    """A request that this user's role does not permit."""


def told(answer: Any, where: str) -> Object:
    """Return the object in a response. Raises LaunchError if the request was rejected."""
    if answer.status >= 300:
        raise refusal(answer, where)
    content: Object = json.loads(answer.read())
    return content


def names_nothing(answer: Any, name: str) -> bool:
    """Return whether the object was not found, rather than its kind or namespace."""
    if answer.status != 404:
        return False
    details = _status(answer).get("details") or {}
    return details.get("name") == name and details.get("kind") != "namespaces"


def refusal(answer: Any, where: str) -> LaunchError:
    """Return the error for a rejected request, with a Problem for each cause that the API names."""
    status = _status(answer)
    message = first_line(status.get("message") or answer.reason or f"status {answer.status}")
    match answer.status:
        case 401:
            return LaunchError(
                Problem(
                    where, rule="the cluster does not know who asks", remedy="log in again, as for kubectl"
                )
            )
        case 403:
            what = str((status.get("details") or {}).get("kind") or where)
            rule = message.partition(" is forbidden: ")[2] or message
            return ForbiddenError(Problem(what, rule=rule, remedy=ROLE))
        case 404 if not (status.get("details") or {}).get("name"):
            return LaunchError(
                Problem(
                    where,
                    rule="the cluster does not know that kind of object",
                    remedy="install what defines it",
                )
            )
        case 409 if "conflict" in message.lower() and (status.get("details") or {}).get("causes"):
            return ConflictError(where, [_contested(cause) for cause in status["details"]["causes"]])
        case 400 | 500 if unknown := _UNKNOWN.findall(str(status.get("message"))):
            remedy = "leave it out, or upgrade KubeRay: see `raystack doctor`"
            paths = [f"{where} {(applied or decoded).lstrip('.')}" for applied, decoded in unknown]
            return LaunchError(
                [Problem(path, rule="the cluster does not know this field", remedy=remedy) for path in paths]
            )
        case 422 if (status.get("details") or {}).get("causes"):
            causes = status["details"]["causes"]
            fields = [f"{where} {cause.get('field', '')}".strip() for cause in causes]
            return LaunchError(
                [
                    Problem(field, rule=first_line(cause["message"]))
                    for field, cause in zip(fields, causes, strict=True)
                ]
            )
        case _:
            return LaunchError(Problem(where, rule=f"the cluster refuses: {message}"))


def _contested(cause: Mapping[str, str]) -> Contested:
    """Return the field of a conflict, and who set it."""
    found = re.search(r'"([^"]+)"', cause.get("message", ""))
    return Contested.by(cause.get("field", "a field"), found.group(1) if found else "somebody else")


def unreachable(host: str, error: object) -> Problem:
    return Problem(
        host,
        rule=f"the Kubernetes API does not answer: {first_line(error)}",
        remedy="see whether `kubectl get nodes` works",
    )


def undialled(where: str, port: int, reason: object) -> LaunchError:
    """Return the error for a port that is not forwarded.

    `reason` is the text of the kubernetes package, which ends with the Status object of a rejected request.
    """
    found = re.search(r'"message": ?("(?:[^"\\]|\\.)*")', str(reason))
    message = first_line(json.loads(found[1]) if found else reason)
    _, refused, rule = message.partition(" is forbidden: ")
    if refused:
        return ForbiddenError(Problem(where, rule=rule, remedy=ROLE))
    return LaunchError(
        Problem(where, rule=f"no connection to port {port}: {message}", remedy="see whether it runs")
    )


def first_line(error: object) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _status(answer: Any) -> Object:
    """Return the Status object of a rejected request; empty if there is none."""
    try:
        status = json.loads(answer.read() or b"{}")
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}
