"""Predictions: a whole body in, the model's answer out."""

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

from raystack.errors import Problem
from raystack.serving.observers import Transport
from raystack.serving.protocol import Contract, InferRequest, RequestError, compression, rest, v1
from raystack.serving.protocol.refusal import short
from raystack.serving.protocol.tensors import Array
from raystack.serving.rest.body import Limits, Receive, read
from raystack.serving.rest.response import JSON_LENGTH, TYPE_BINARY, TYPE_JSON, Headers, Response
from raystack.serving.rest.routes import Route
from raystack.serving.rest.watch import watched
from raystack.serving.server import Call, Model, Server, Version

Result = TypeVar("Result")
Sent = Mapping[bytes, bytes]

LARGE = 256 * 1024
"""Bytes from which on a body is read and written in a thread, so that small requests go on meanwhile."""
BRIEF_S = 0.01
"""Requests that take less are not watched for a client that goes away: the watch would cost more."""
LENGTH, ENCODING, ACCEPTED = b"content-length", b"content-encoding", b"accept-encoding"
TRACE = b"traceparent"
TIMEOUTS = (b"x-request-timeout", b"x-request-timeout-seconds")
"""Headers of a client's own bound in seconds; the second is Ray Serve's name."""
WANTED = frozenset((LENGTH, ENCODING, ACCEPTED, TRACE, JSON_LENGTH, *TIMEOUTS))


class Codec(NamedTuple):
    """Bodies of one protocol."""

    parse: Callable[[bytes, str | None, Contract], InferRequest]
    render: Callable[[InferRequest, Mapping[str, Array], Contract], tuple[bytes, int | None]]


CODECS: Mapping[str, tuple[Transport, Codec]] = {
    "infer": ("rest", Codec(rest.parse, rest.render)),
    "predict": ("v1", Codec(v1.parse, v1.render)),
}
"""By the action of a route."""


class RawHeaders(Mapping[str, str]):
    """A request's headers as text, read only where somebody looks."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        key = name.lower().encode()
        for each, value in self._raw:
            if each == key:
                return value.decode("latin-1")
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.decode("latin-1") for name, _ in self._raw))

    def __len__(self) -> int:
        return len({name for name, _ in self._raw})


class Predictions:
    """Predictions of one server's models over HTTP."""

    def __init__(self, server: Server, limits: Limits) -> None:
        self._server, self._limits = server, limits
        self._threads = ThreadPoolExecutor(2, "bodies")

    async def answer(self, route: Route, headers: list[tuple[bytes, bytes]], receive: Receive) -> Response:
        """Answer a request with a model's outputs. Raises RequestError and DisconnectedError."""
        started = perf_counter()
        model = self._server.model(route.model)
        sent = {name: value for name, value in headers if name in WANTED}
        body = await read(receive, sent.get(LENGTH), self._limits)
        protocol, codec = CODECS[route.action]
        call = Call(
            protocol,
            started,
            _seconds(sent),
            _text(sent, TRACE),
            RawHeaders(headers) if self._server.observers or model.split is not None else None,
            named=bool(route.version),
        )
        version = model.version(route.version)
        with version:
            return await self._predict(codec, model, version, body, sent, call, receive)

    async def _predict(
        self,
        codec: Codec,
        model: Model,
        version: Version,
        body: bytes,
        sent: Sent,
        call: Call,
        receive: Receive,
    ) -> Response:
        contract, statistics = version.contract, version.statistics
        try:
            model.admission.check()
            began = perf_counter()
            if len(body) < LARGE and ENCODING not in sent:
                request = codec.parse(body, _text(sent, JSON_LENGTH), contract)
            else:
                request = await self._aside(self._read, codec, body, sent, contract)
            statistics.compute_input.spend(perf_counter() - began)
        except RequestError as error:
            self._server.refused(call, version, error)
            raise
        if statistics.lately_s < BRIEF_S and not model.admission.full:
            outputs, version = await self._server.infer(model, version, request, call)
        else:
            outputs, version = await watched(self._server.infer(model, version, request, call), receive)
        contract = version.contract
        began = perf_counter()
        if _size(outputs) < LARGE:
            response = _written(codec, request, outputs, contract, sent)
        else:
            response = await self._aside(_written, codec, request, outputs, contract, sent)
        if self._server.lineage:
            response.headers.extend(lineage(version))
        statistics.compute_output.spend(perf_counter() - began)
        return response

    def _read(self, codec: Codec, body: bytes, sent: Sent, contract: Contract) -> InferRequest:
        encoding = _text(sent, ENCODING)
        if encoding is not None:
            body = compression.decompress(body, encoding, self._limits.size)
        return codec.parse(body, _text(sent, JSON_LENGTH), contract)

    async def _aside(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def lineage(version: Version) -> Headers:
    """Return the headers that say what has answered."""
    contract = version.contract
    named = (("model", contract.name), ("version", contract.version), ("run", version.run))
    return [(f"raystack-{what}".encode(), name.encode()) for what, name in named if name]


def _written(
    codec: Codec, request: InferRequest, outputs: Mapping[str, Array], contract: Contract, sent: Sent
) -> Response:
    """The answer, compressed if the client takes that."""
    body, length = codec.render(request, outputs, contract)
    headers = [TYPE_JSON] if length is None else [TYPE_BINARY, (JSON_LENGTH, b"%d" % length)]
    if ACCEPTED in sent:
        body, encoding = compression.compress(body, sent[ACCEPTED].decode("latin-1"))
        if encoding is not None:
            headers.append((b"content-encoding", encoding.encode()))
    return Response(200, headers, body)


def _seconds(sent: Sent) -> float | None:
    """The client's own bound; 0 is none."""
    value = sent.get(TIMEOUTS[0]) or sent.get(TIMEOUTS[1])
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        got = short(value.decode("latin-1"))
        raise RequestError(Problem(TIMEOUTS[0].decode(), rule="should be a number of seconds", got=got))
    return seconds if 0 < seconds < math.inf else None


def _text(sent: Sent, name: bytes) -> str | None:
    value = sent.get(name)
    return None if value is None else value.decode("latin-1")


def _size(outputs: Mapping[str, Array]) -> int:
    """About the bytes of a body of JSON: a float of 4 bytes takes some 10 to 20 characters."""
    return 4 * sum([array.nbytes for array in outputs.values()])
