"""Bodies that are compressed, as Triton takes and sends them: gzip and deflate."""

import zlib

from raystack.errors import Problem
from raystack.serving.protocol.refusal import RequestError, short

ENCODINGS = ("gzip", "deflate")

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""What zlib is told for a format; HTTP's deflate has zlib's header."""

_LEVEL = 1
"""Numbers hardly get smaller for more time."""


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Return the body that was sent with Content-Encoding `encoding`; it has at most `limit` bytes.

    Raises RequestError: 415 for another encoding, 413 where the body is larger, and 400 where it is damaged.
    Unpacking ends at the limit.
    """
    kind = encoding.strip().lower()
    if kind in ("", "identity"):
        return body
    if kind not in ENCODINGS:
        rule = f"is one of {', '.join(ENCODINGS)}, identity"
        problem = Problem("Content-Encoding", rule=rule, got=short(encoding))
        raise RequestError(problem, 415, (("accept-encoding", ", ".join(ENCODINGS)),))
    unpacker = zlib.decompressobj(_WINDOWS[kind])
    try:
        unpacked = unpacker.decompress(body, limit + 1)
    except zlib.error:
        raise RequestError(Problem("body", rule=f"is not {kind} data")) from None
    if len(unpacked) > limit:
        raise RequestError(Problem("body", rule=f"is larger than {limit} bytes, unpacked"), 413)
    if not unpacker.eof or unpacker.unused_data:
        fault = "goes on after" if unpacker.eof else "ends before"
        raise RequestError(Problem("body", rule=f"{fault} the end of its {kind} data"))
    return unpacked


def compress(body: bytes, accepted: str) -> tuple[bytes, str | None]:
    """Return a body and its Content-Encoding, None for none, for a client that sent Accept-Encoding
    `accepted`.
    """
    kind = _best(accepted)
    if kind is None:
        return body, None
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOWS[kind])
    return packer.compress(body) + packer.flush(), kind


def _best(accepted: str) -> str | None:
    """The encoding that a client would rather have; of equal ones the first of ENCODINGS."""
    weights: dict[str, float] = {}
    for item in accepted.lower().split(","):
        name, _, text = item.partition(";")
        weights[name.strip()] = _weight(text)
    others = weights.get("*", 0.0)
    kind = max(ENCODINGS, key=lambda each: weights.get(each, others))
    weight = weights.get(kind, others)
    return kind if weight > 0 and weight >= weights.get("identity", 0.0) else None


def _weight(text: str) -> float:
    """The weight in `q=0.5`; 1 where there is none."""
    name, _, value = text.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
