"""Errors of requests to MLflow -> why it does not answer, as one clause for the user.

MLflow's own text names the request and its retries first, and the cause last or not at all.
"""

import re
import socket
import ssl
from collections.abc import Iterator

import requests
from sqlalchemy.exc import DBAPIError
from urllib3.exceptions import ProtocolError
from urllib3.exceptions import TimeoutError as UrllibTimeoutError

LONGEST = 300
"""Characters of an error's own text."""

_STATUS = re.compile(r"too many (\d{3}) error responses|failed with error code (\d{3})")
_CODE = re.compile(r"^[A-Z_]+: ")
"""MLflow's code of an answer."""
_NO_JSON = "response body was not in a valid JSON format"


def reason_of(error: Exception, timeout_s: float) -> str:
    """Return the cause of `error`; a request without a byte for `timeout_s` seconds has timed out."""
    for cause in _causes(error):
        match cause:
            case socket.gaierror():
                return f"the name of its host cannot be resolved ({cause.strerror})"
            case ConnectionRefusedError():
                return "the connection is refused"
            case ssl.SSLError():
                return f"no TLS connection ({cause.reason or cause.strerror})"
            case TimeoutError() | UrllibTimeoutError():
                return f"no answer within {timeout_s:g} s"
            case requests.TooManyRedirects():
                return "it redirects without an end"
            case ProtocolError():
                return "it closes the connection without an answer"
            case DBAPIError():
                return _first_line(str(cause.orig))
            case OSError(errno=int(), strerror=str(words), filename=None):
                return words.lower()
    text = str(error)
    if _NO_JSON in text:
        body = text.partition("Response body: ")[2].splitlines()[0].strip("'")[:60]
        return f"it answers with something that is no JSON, such as a login page ({body})"
    if found := _STATUS.search(text):
        body = _first_line(text.partition("Response body: ")[2].strip("'"))
        shown = f": {body}" if body and not body.startswith("<") else ""
        return f"it answers with status {found[1] or found[2]}{shown}"
    own = _first_line(_CODE.sub("", text)).rpartition(" supplied: ")[2]
    return own or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and what it was raised from, the innermost first."""
    chain = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    yield from reversed(chain)


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0][:LONGEST] if lines else ""
