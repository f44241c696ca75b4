"""Requests over HTTP that are wrong somewhere, as the bytes that a socket sends, and what comes back.

They ask for the model `demo` of `spoiled.CONTRACT`.
"""

import gzip
import json
import random
import re
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from tests.unit.serving.spoiled import document, mutants, mutants_of_v1

INFER, PREDICT = b"/v2/models/demo/infer", b"/v1/models/demo:predict"
LIMIT = 1_000_000
"""Bytes of the largest body that the server should take."""
QUIET_S = 0.05
"""Time that a server has to answer a request which is never whole; then the client goes away."""
LONGEST_S = 60.0
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


class Broken(NamedTuple):
    """A request, and what may come back."""

    kind: str
    sent: tuple[bytes, ...]
    """Sent one after the other, with a moment between."""
    whole: bool = True
    """Whether the server can tell that it is at its end, and so has to answer."""


def request(
    method: bytes = b"POST",
    path: bytes = INFER,
    body: bytes | None = b"",
    *headers: tuple[bytes, bytes],
) -> bytes:
    """A request after which the connection ends; with no body there is no length."""
    lines = [method + b" " + path + b" HTTP/1.1", b"Host: test", b"Connection: close"]
    lines += [name + b": " + value for name, value in headers]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def good() -> bytes:
    """A request that is answered with 200."""
    head, blob = document(random.Random(0))
    text = json.dumps(head).encode()
    return request(b"POST", INFER, text + blob, (b"Inference-Header-Content-Length", b"%d" % len(text)))


def answers(port: int, broken: Broken) -> list[int]:
    """The statuses that come back, in order; 100 is left out."""
    with socket.create_connection(("127.0.0.1", port), LONGEST_S) as connection:
        received = b""
        with suppress(ConnectionError):
            for at, piece in enumerate(broken.sent):
                if at:
                    time.sleep(0.002)
                connection.sendall(piece)
        connection.settimeout(LONGEST_S if broken.whole else QUIET_S)
        with suppress(ConnectionError, TimeoutError):
            while piece := connection.recv(1 << 16):
                received += piece
        if not broken.whole:
            # A reset, not an orderly end.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return [int(status) for status in STATUS.findall(received) if status != b"100"]


def broken(seed: int, count: int) -> Iterator[Broken]:
    """Requests of all kinds."""
    chance = random.Random(seed)
    spoiled = mutants(seed, count)
    spoiled_v1 = mutants_of_v1(seed, count)
    for number in range(count):
        # A third are bodies, which there is most to be wrong with.
        if number % 4 == 0:
            body, header = next(spoiled)
            length = () if header is None else ((b"Inference-Header-Content-Length", header.encode()),)
            yield Broken("body", (request(b"POST", INFER, body, *length),))
        elif number % 16 == 1:
            yield Broken("v1 body", (request(b"POST", PREDICT, next(spoiled_v1)),))
        else:
            kind = chance.choice(list(KINDS))
            yield KINDS[kind](chance)._replace(kind=kind)


BOMB = gzip.compress(b" " * 50_000_000, 9)
JUNK = [
    b"",
    b"\0",
    b"null",
    b"[]",
    b"{}",
    b"{",
    b'"' + b"a" * 100_000,
    b"\xef\xbb\xbf{}",
    "{}".encode("utf-16"),
    b"\xff\xfe\xfd",
    b'{"inputs": "\xc3\x28"}',
    b'{"id": "\\ud800", "inputs": []}',
    b'{"inputs": [NaN, Infinity, -Infinity]}',
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"inputs": [' + b"[" * 5_000 + b"]" * 5_000 + b"]}",
    b'{"inputs": [' + b"9" * 5_000 + b"]}",
    b'{"inputs": [1e999, -1e999, 1e-999]}',
    b'{"inputs": [], "inputs": 5, "id": "a", "id": 7}',
    b'{"inputs": [' + b"{}," * 20_000 + b"{}]}",
    b'{"parameters": {' + b",".join(b'"%d": %d' % (at, at) for at in range(5_000)) + b'}, "inputs": []}',
]
NUMBERS = b"0 -1 +5 1e3 0x10 5,5 99999999 NaN inf -0 1_0 00 1.5 18446744073709551616 \xd9\xa3 \xff".split()
NUMBERS += [b"", b"5 5", b"9" * 5_000, b"9" * 10_000]
TEXTS = [*b"; , * gzip;q= gzip;q=x identity;q=0 \xff\xfe".split(), b"", b"a" * 5_000, b"," * 2_000]
NAMES = b"demo %64emo demo%2F de%6do %zz % %0 %00 %ff%fe %2e%2e .. . nope DEMO demo;x demo?x=1 demo#x".split()
NAMES += [b"", b"d" * 2_000, b"%41" * 500, b"demo:predict", b"%0d%0aX-A:%20b", "d\u00ebmo".encode()]
METHODS = [*b"HEAD OPTIONS TRACE PUT DELETE PATCH CONNECT PROPFIND FOO post GET \xff".split(), b"M" * 300]
COUNTING = b"Inference-Header-Content-Length X-Request-Timeout X-Request-Timeout-Seconds Keep-Alive".split()
TELLING = b"""Accept-Encoding Content-Type Content-Encoding Accept Traceparent Tracestate Cookie X-Request-Id
    Forwarded X-Forwarded-For Range If-None-Match Authorization""".split()


def _junk(chance: random.Random) -> Broken:
    body = chance.choice([*JUNK, chance.randbytes(chance.randrange(1, 2_000))])
    return Broken("", (request(b"POST", chance.choice([INFER, PREDICT]), body),))


def _compressed(chance: random.Random) -> Broken:
    good_body = b'{"inputs": []}'
    body, encoding = chance.choice(
        [
            (gzip.compress(good_body), b"gzip"),
            (gzip.compress(good_body)[:-5], b"gzip"),
            (gzip.compress(good_body) + b"more", b"gzip"),
            (gzip.compress(good_body), b"deflate"),
            (zlib.compress(good_body)[1:], b"deflate"),
            (zlib.compress(good_body), b"deflate"),
            (chance.randbytes(500), b"gzip"),
            (b"", b"gzip"),
            (BOMB, b"gzip"),
            (gzip.compress(BOMB), b"gzip"),
            (gzip.compress(good_body), b"gzip, gzip"),
            (good_body, b"br"),
            (good_body, b"a" * 5_000),
            (good_body, b"\xff"),
        ]
    )
    return Broken("", (request(b"POST", INFER, body, (b"Content-Encoding", encoding)),))


def _header(chance: random.Random) -> Broken:
    name = chance.choice(COUNTING + TELLING)
    values = NUMBERS if name in COUNTING else TEXTS
    headers = [(name, chance.choice(values)) for _ in range(chance.choice([1, 1, 2, 3]))]
    body = chance.choice([b"{}", b'{"inputs": []}', b""])
    return Broken("", (request(b"POST", INFER, body, *headers),))


def _length(chance: random.Random) -> Broken:
    lengths = [(b"Content-Length", chance.choice(NUMBERS)) for _ in range(chance.choice([1, 1, 2]))]
    if chance.random() < 0.3:
        lengths.append(
            (
                b"Transfer-Encoding",
                chance.choice([b"chunked", b"gzip", b"identity", b"chunked, chunked", b"x"]),
            )
        )
    return Broken("", (request(b"POST", INFER, None, *lengths) + b"{}",), whole=False)


def _chunked(chance: random.Random) -> Broken:
    size = chance.choice(
        [
            b"0",
            b"2",
            b"3",
            b"-1",
            b"zz",
            b"",
            b"f" * 17,
            b"2;a=b",
            b"2;" + b"a" * 20_000,
            b"0x2",
            b" 2",
            b"00000000000000000002",
        ]
    )
    data, after = chance.choice([b"{}", b"{", b"{}\r\n", b""]), chance.choice([b"\r\n", b"", b"\n", b"x"])
    end = chance.choice(
        [b"0\r\n\r\n", b"0\r\n", b"0\r\nTrailer: a\r\n\r\n", b"0\r\nContent-Length: 5\r\n\r\n", b""]
    )
    head = request(b"POST", INFER, None, (b"Transfer-Encoding", b"chunked"))
    return Broken("", (head, size + b"\r\n" + data + after, end), whole=False)


def _path(chance: random.Random) -> Broken:
    name, version = chance.choice(NAMES), chance.choice([b"3", b"9", b"%33", b"-1", b"", b"9" * 5_000, b"%"])
    path = chance.choice(
        [
            b"/v2/models/" + name + b"/infer",
            b"/v2/models/" + name + b"/versions/" + version + b"/infer",
            b"/v1/models/" + name + b":predict",
            b"/v2/models/" + name,
            b"/v2/models/" + name + b"/versions/" + version + b"/ready",
            b"/v2/models/" + name + b"/config",
            b"/v2/models/" + name + b"/stats",
            b"/v2/repository/models/" + name + b"/load",
            b"//v2//models//" + name,
            b"/v2/models/../../etc/passwd",
            b"/" + b"a" * 9_000,
            b"http://other/v2/models/" + name,
            b"*",
            b"v2",
            b"/v2/models/demo/infer\0",
            b"/v2/\xff",
            b"/-/healthz",
            b"/-/routes",
        ]
    )
    return Broken("", (request(chance.choice([b"GET", b"POST", b"HEAD"]), path, b""),), whole=False)


def _method(chance: random.Random) -> Broken:
    path = chance.choice(
        [INFER, PREDICT, b"/v2", b"/v2/models/demo", b"/v2/repository/index", b"/nope", b"/"]
    )
    return Broken("", (request(chance.choice(METHODS), path, b""),), whole=False)


def _management(chance: random.Random) -> Broken:
    path = chance.choice(
        [
            b"/v2/repository/index",
            b"/v2/trace/setting",
            b"/v2/models/demo/trace/setting",
            b"/v2/logging",
            b"/v2/repository/models/demo/load",
            b"/v2/repository/models/demo/unload",
            b"/v2/systemsharedmemory/region/x/register",
            b"/v2/cudasharedmemory/status",
        ]
    )
    key = chance.choice(
        ["ready", "trace_level", "trace_rate", "log_file", "log_info", "parameters", "nope", "x" * 5_000]
    )
    value: Any = chance.choice(
        [None, True, -1, 10**30, "x", "1" * 5_000, [], ["TIMESTAMPS"], [1], {}, {"a": {"b": []}}]
    )
    body = chance.choice([json.dumps({key: value}).encode(), *JUNK])
    return Broken("", (request(b"POST", path, body),))


def _framing(chance: random.Random) -> Broken:
    line = b"POST " + INFER + b" HTTP/1.1\r\n"
    sent = chance.choice(
        [
            line + b"\r\n",
            line + b"Content-Length: 2\r\n\r\n{}",
            b"POST " + INFER + b"\r\n\r\n",
            b"POST " + INFER + b" HTTP/3.9\r\nHost: a\r\n\r\n",
            b"POST " + INFER + b" HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
            b"\r\n" * 50 + line + b"Host: a\r\nContent-Length: 0\r\n\r\n",
            line.replace(b"\r\n", b"\n") + b"Host: a\nContent-Length: 2\n\n{}",
            line + b"Host: a\r\n folded: b\r\n\r\n",
            line + b"Host a\r\n\r\n",
            line + b"Ho st: a\r\n\r\n",
            line + b"Host: a\0b\r\n\r\n",
            line + b": a\r\n\r\n",
            line + b"Host: a\r\nHost: b\r\nContent-Length: 2\r\n\r\n{}",
            line + b"Host: a\r\nX: " + b"a" * 60_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
            line + b"Host: a\r\n" + b"X: a\r\n" * 1_000 + b"Content-Length: 2\r\n\r\n{}",
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
            chance.randbytes(chance.randrange(1, 2_000)),
            b"\0" * 100,
        ]
    )
    return Broken("", (sent,), whole=False)


def _pipelined(chance: random.Random) -> Broken:
    def kept(sent: bytes) -> bytes:
        return sent.replace(b"Connection: close\r\n", b"")

    middle = chance.choice(
        [request(b"GET", b"/nope", b""), request(b"POST", INFER, b"{"), request(b"HEAD", b"/v2", b"")]
    )
    count = chance.choice([1, 5, 20])
    return Broken("", (kept(good()) * count + kept(middle) + good(),), whole=chance.random() < 0.9)


def _dropped(chance: random.Random) -> Broken:
    whole = good()
    cut = whole[: chance.randrange(1, len(whole))]
    pieces = tuple(cut[at : at + 200] for at in range(0, len(cut), 200))
    return Broken("", chance.choice([(cut,), pieces, pieces[:1]]), whole=False)


def _expect(chance: random.Random) -> Broken:
    expect = chance.choice([b"100-continue", b"100-Continue", b"200-ok", b""])
    head = request(b"POST", INFER, None, (b"Expect", expect), (b"Content-Length", b"2"))
    return Broken("", chance.choice([(head, b"{}"), (head + b"{}",), (head,)]), whole=False)


def _upgrade(chance: random.Random) -> Broken:
    kind = chance.choice([b"websocket", b"h2c", b"foo", b""])
    headers = [(b"Upgrade", kind), (b"Connection", b"Upgrade")]
    if chance.random() < 0.5:
        headers += [
            (b"Sec-WebSocket-Version", chance.choice([b"13", b"8", b"x"])),
            (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZQ=="),
        ]
    sent = request(chance.choice([b"GET", b"POST"]), chance.choice([INFER, b"/v2"]), b"", *headers)
    return Broken("", (sent.replace(b"Connection: close\r\n", b""),), whole=False)


def _oversize(chance: random.Random) -> Broken:
    declared = request(b"POST", INFER, None, (b"Content-Length", b"%d" % chance.choice([LIMIT + 1, 10**12])))
    body = b" " * (LIMIT + 1)
    chunked = request(b"POST", INFER, None, (b"Transfer-Encoding", b"chunked")) + b"%x\r\n" % len(body) + body
    sent = chance.choice([(declared, b"{}"), (chunked,), (request(b"POST", INFER, body),)])
    return Broken("", sent, whole=False)


KINDS: Mapping[str, Callable[[random.Random], Broken]] = {
    "junk": _junk,
    "compressed": _compressed,
    "header": _header,
    "length": _length,
    "chunked": _chunked,
    "path": _path,
    "method": _method,
    "management": _management,
    "framing": _framing,
    "pipelined": _pipelined,
    "dropped": _dropped,
    "expect": _expect,
    "upgrade": _upgrade,
    "oversize": _oversize,
}
