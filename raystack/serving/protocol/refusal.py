"""A request that is refused: the one error of every transport."""

from reprlib import Repr
from typing import Any

from raystack.errors import Problem

Headers = tuple[tuple[str, str], ...]
"""HTTP headers of an answer, with names in lower case."""

_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxstring, _SHORT.maxother = 3, 10, 60, 60


class RequestError(Exception):
    """A request that is not answered with outputs; `status` is the HTTP status, the message says what to send
    instead. `headers` go with the answer over HTTP.
    """

    def __init__(self, problem: Problem, status: int = 400, headers: Headers = ()) -> None:
        self.problem, self.status, self.headers = problem, status, headers
        super().__init__(str(problem))


def short(value: Any) -> str:
    """A value that a client sent, for a message: on one line, and cut where it is long or deep."""
    return _SHORT.repr(value)
