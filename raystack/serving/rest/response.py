"""An answer over HTTP."""

from typing import Any, NamedTuple

from raystack.serving.protocol import RequestError, rest

Headers = list[tuple[bytes, bytes]]
TYPE_JSON = (b"content-type", rest.JSON.encode())
TYPE_BINARY = (b"content-type", rest.BINARY.encode())
JSON_LENGTH = rest.HEADER_LENGTH.lower().encode()


class Response(NamedTuple):
    """Status, headers without the length, and body."""

    status: int
    headers: Headers
    body: bytes


def answer(values: Any, status: int = 200) -> Response:
    """An answer of JSON values."""
    return Response(status, [TYPE_JSON], rest.to_json(values))


def refusal(error: RequestError) -> Response:
    """The answer to a request that is refused."""
    headers = [(name.encode(), value.encode()) for name, value in error.headers]
    return Response(error.status, [TYPE_JSON, *headers], rest.error_body(str(error)))
