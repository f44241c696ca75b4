"""Compressed bodies: both formats both ways, and nothing unpacked beyond the limit."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from raystack.serving.protocol import RequestError
from raystack.serving.protocol.compression import compress, decompress

PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
UNPACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}
BODY = b'{"inputs": []}' * 100


@pytest.mark.parametrize("encoding", list(PACK))
def test_both_ways(encoding: str) -> None:
    assert decompress(PACK[encoding](BODY), encoding, len(BODY)) == BODY
    packed, used = compress(BODY, encoding)
    assert (used, UNPACK[encoding](packed)) == (encoding, BODY)
    assert len(packed) < len(BODY)


@pytest.mark.parametrize("encoding", ["identity", "", " Identity "])
def test_a_plain_body_stays_as_it_is(encoding: str) -> None:
    assert decompress(BODY, encoding, 1) == BODY


@pytest.mark.parametrize("encoding", list(PACK))
def test_a_bomb_is_refused_without_being_unpacked(encoding: str) -> None:
    bomb = PACK[encoding](bytes(50_000_000))
    tracemalloc.start()
    with pytest.raises(RequestError, match="body: is larger than 1000000 bytes, unpacked") as raised:
        decompress(bomb, encoding, 1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert raised.value.status == 413
    assert peak < 10_000_000


@pytest.mark.parametrize(
    ("body", "encoding", "message", "status"),
    [
        (BODY, "gzip", "body: is not gzip data", 400),
        (BODY, "deflate", "body: is not deflate data", 400),
        (b"", "gzip", "body: ends before the end of its gzip data", 400),
        (gzip.compress(BODY)[:-1], "gzip", "body: ends before the end of its gzip data", 400),
        (gzip.compress(BODY) * 2, "gzip", "body: goes on after the end of its gzip data", 400),
        (BODY, "br", "Content-Encoding: is one of gzip, deflate, identity (got 'br')", 415),
        (BODY, "gzip, gzip", "Content-Encoding: is one of", 415),
    ],
)
def test_what_cannot_be_unpacked_is_told(body: bytes, encoding: str, message: str, status: int) -> None:
    with pytest.raises(RequestError) as raised:
        decompress(body, encoding, 10_000)
    assert str(raised.value).startswith(message)
    assert raised.value.status == status


@pytest.mark.parametrize(
    ("accepted", "used"),
    [
        ("gzip, deflate", "gzip"),
        ("deflate;q=0.9, gzip;q=0.5", "deflate"),
        ("*", "gzip"),
        ("br", None),
        ("identity", None),
        ("gzip;q=0", None),
        ("gzip;q=0, *", "deflate"),
        ("gzip;q=0.5, identity", None),
        ("gzip;q=none", None),
        ("", None),
    ],
)
def test_the_client_chooses(accepted: str, used: str | None) -> None:
    assert compress(BODY, accepted)[1] == used
