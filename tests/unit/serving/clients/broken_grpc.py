"""Calls over gRPC that are wrong somewhere, from the bytes of HTTP/2 to a tensor's values.

They ask for the model `demo` of `spoiled.CONTRACT`.
"""

import random
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import grpc

from raystack.serving.grpc.messages import Message, message_class
from raystack.serving.grpc.rpc import rpcs
from raystack.serving.grpc.services import NAMES
from raystack.serving.protocol.tensors import DATATYPES, to_bytes
from raystack.serving.protocol.values import to_array
from tests.unit.serving.spoiled import DTYPES, VALUES
from tests.unit.serving.spoiled_messages import spoil, spoiled

SERVICE = "/inference.GRPCInferenceService"
LONGEST_S = 60.0
REFUSALS = {
    "CANCELLED", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"
}  # fmt: skip
"""Codes that blame the client."""


def good() -> Message:
    """A request that is answered."""
    request = message_class("inference.ModelInferRequest")(model_name="demo", id="7")
    for dtype in DTYPES:
        request.inputs.add(name=dtype, datatype=DATATYPES[dtype], shape=[3, 2])
        request.raw_input_contents.append(to_bytes(to_array(VALUES[dtype], dtype)))
    return request


def ask(channel: grpc.Channel, chance: random.Random) -> str:
    """Make a broken call of some kind; returns its status code."""
    kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
    try:
        kind(channel, chance)
    except grpc.RpcError as error:
        code, details = error.code(), error.details()
        assert code.name in REFUSALS, (kind.__name__, code, details)
        assert details, (kind.__name__, code)
        return str(code.name)
    return "OK"


def _message(chance: random.Random) -> bytes:
    request = good()
    if chance.random() < 0.3:
        del request.raw_input_contents[:]
        request.inputs[0].contents.fp32_contents.extend(range(6))
    for _ in range(chance.choice([0, 1, 1, 2, 3])):
        spoil(chance, request)
    body = request.SerializeToString()
    return spoiled(chance, body) if chance.random() < 0.3 else body


def _infer(channel: grpc.Channel, chance: random.Random) -> None:
    compression = chance.choice([None, None, grpc.Compression.Gzip, grpc.Compression.Deflate])
    channel.unary_unary(f"{SERVICE}/ModelInfer")(_message(chance), timeout=LONGEST_S, compression=compression)


def _stream(channel: grpc.Channel, chance: random.Random) -> None:
    bodies = [_message(chance) for _ in range(chance.randrange(6))]
    metadata = (("triton_grpc_error", "true"),) if chance.random() < 0.3 else ()
    call = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
    answers = list(call(iter(bodies), timeout=LONGEST_S, metadata=metadata))
    assert len(answers) == len(bodies)
    assert not any(b"the server failed" in answer for answer in answers), answers


def _other(channel: grpc.Channel, chance: random.Random) -> None:
    service = chance.choice(NAMES)
    rpc = chance.choice([rpc for rpc in rpcs(service).values() if not rpc.streams_out])
    request = rpc.request()
    for _ in range(chance.randrange(4) if request.DESCRIPTOR.fields else 0):
        spoil(chance, request)
    body = request.SerializeToString()
    body = spoiled(chance, body) if chance.random() < 0.3 else body
    channel.unary_unary(f"/{service}/{rpc.name}")(body, timeout=LONGEST_S)


def _junk(channel: grpc.Channel, chance: random.Random) -> None:
    body = chance.choice([b"", b"\xff" * 500, b"\x0a" * 500, chance.randbytes(500), bytes(2_000_000), b"{}"])
    channel.unary_unary(f"{SERVICE}/ModelInfer")(body, timeout=LONGEST_S)


def _nowhere(channel: grpc.Channel, chance: random.Random) -> None:
    path = chance.choice([f"{SERVICE}/Nope", "/nope.Service/ModelInfer", "/", f"{SERVICE}/ModelInfer/x"])
    channel.unary_unary(path)(_message(chance), timeout=LONGEST_S)


def _metadata(channel: grpc.Channel, chance: random.Random) -> None:
    metadata: Any = chance.choice(
        [
            (("traceparent", "00-" + "f" * 500),),
            (("traceparent", ""), ("traceparent", "x")),
            (("a-bin", chance.randbytes(1_000)),),
            (("authorization", "Bearer " + "x" * 1_000), ("grpc-accept-encoding", "x")),
            tuple((f"key{at}", "v" * 100) for at in range(50)),
            (("key", "v" * 20_000),),
        ]
    )
    channel.unary_unary(f"{SERVICE}/ModelInfer")(_message(chance), timeout=LONGEST_S, metadata=metadata)


def _given_up(channel: grpc.Channel, chance: random.Random) -> None:
    call = channel.unary_unary(f"{SERVICE}/ModelInfer")
    if chance.random() < 0.5:
        call(_message(chance), timeout=chance.choice([1e-6, 1e-4, 1e-3]))
    else:
        asked = call.future(_message(chance), timeout=LONGEST_S)
        asked.cancel()
        with suppress(grpc.FutureCancelledError):
            asked.result()


KINDS: Mapping[Callable[[grpc.Channel, random.Random], None], float] = {
    _infer: 12,
    _stream: 2,
    _other: 3,
    _junk: 1,
    _nowhere: 1,
    _metadata: 1,
    _given_up: 1,
}

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    """A frame of HTTP/2."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def headers(*pairs: tuple[bytes, bytes]) -> bytes:
    """Headers as HPACK's literals without an index."""
    found = b""
    for name, value in pairs:
        assert len(name) < 127
        length = bytes([len(value)]) if len(value) < 127 else b"\x7f" + _varint(len(value) - 127)
        found += b"\0" + bytes([len(name)]) + name + length + value
    return found


def _varint(value: int) -> bytes:
    found = b""
    while value >= 128:
        found += bytes([value % 128 + 128])
        value //= 128
    return found + bytes([value])


def broken_bytes(chance: random.Random) -> bytes:
    """What a client sends that is no gRPC, or lies about its sizes."""
    path, kind, method = SERVICE.encode() + b"/ModelInfer", b"application/grpc", b"POST"
    pairs = [
        (b":method", chance.choice([method, method, b"GET", b"\xff"])),
        (b":scheme", b"http"),
        (b":path", chance.choice([path, path, b"", b"/" + b"a" * 5_000])),
        (b":authority", b"test"),
        (b"content-type", chance.choice([kind, kind, b"text/html", b""])),
        (b"te", b"trailers"),
        (b"grpc-timeout", chance.choice([b"1S", b"-1S", b"99999999999999H", b"x", b""])),
        (b"grpc-encoding", chance.choice([b"identity", b"gzip", b"nope"])),
    ]
    chance.shuffle(pairs)
    body = good().SerializeToString()
    size = chance.choice([len(body), 0, 1, 2**31, 2**32 - 1]).to_bytes(4, "big")
    data = bytes([chance.choice([0, 0, 1, 7])]) + size + body
    opened = PREFACE + frame(4, 0, 0, b"") + frame(1, 4, 1, headers(*pairs))
    return chance.choice(
        [
            opened + frame(0, 1, 1, data),
            opened + frame(0, 1, 1, data[: chance.randrange(len(data))]),
            opened + frame(0, 0, 1, data),
            opened + frame(0, 1, 1, data) + frame(0, 1, 1, data),
            opened + frame(0, 1, 1, data, length=2**24 - 1),
            opened + frame(3, 0, 1, b"\0\0\0\x08"),
            opened + frame(8, 0, 1, bytes(4)) + frame(8, 0, 0, b"\x7f\xff\xff\xff") * 2,
            PREFACE + frame(1, 4, 1, chance.randbytes(100)),
            PREFACE + frame(chance.randrange(256), chance.randrange(256), chance.randrange(2**32), b"a" * 50),
            PREFACE + frame(4, 0, 0, chance.randbytes(chance.choice([3, 6, 60]))),
            PREFACE,
            PREFACE[:10],
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
            chance.randbytes(1_000),
        ]
    )


def send(address: str, sent: bytes) -> None:
    """Send bytes, take what comes within a moment, and go away."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), LONGEST_S) as connection:
        connection.settimeout(0.02)
        with suppress(ConnectionError, TimeoutError):
            connection.sendall(sent)
            while connection.recv(1 << 16):
                pass
