"""pods/portforward over a websocket: in go the frames of a client, out comes what a local TCP port answers.

The protocol is Kubernetes' v4.channel.k8s.io: the first byte of a frame is its channel, two for each port:
data, and errors. Each channel opens with its port, in two bytes.
"""

import base64
import hashlib
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

PROTOCOL = "v4.channel.k8s.io"
_BINARY, _CLOSE, _PING, _PONG = 2, 8, 9, 10


def accept(key: str) -> str:
    """The answer to Sec-WebSocket-Key (RFC 6455)."""
    return base64.b64encode(
        hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    ).decode()


def forward(incoming: BinaryIO, outgoing: BinaryIO, ports: Sequence[int], served: Mapping[int, int]) -> None:
    """Move bytes until the client is gone or all ports are closed. `served` says which local port a pod's
    port leads to.
    """
    lock = threading.Lock()

    def send(payload: bytes, opcode: int = _BINARY) -> None:
        with lock:
            outgoing.write(_frame(opcode, payload))
            outgoing.flush()

    connections: dict[int, socket.socket] = {}
    pumps = []
    try:
        for index, port in enumerate(ports):
            for channel in (2 * index, 2 * index + 1):
                send(bytes([channel]) + struct.pack("<H", port))
            try:
                connections[2 * index] = socket.create_connection(("127.0.0.1", served[port]), timeout=5)
            except (KeyError, OSError):
                send(bytes([2 * index + 1]) + f"error forwarding port {port}: connection refused".encode())
                continue
            connections[2 * index].settimeout(None)
            pumps.append(
                threading.Thread(target=_pump, args=(connections[2 * index], 2 * index, send), daemon=True)
            )
            pumps[-1].start()
        while (frame := _read(incoming)) is not None:
            opcode, payload = frame
            if opcode == _CLOSE:
                send(b"", _CLOSE)
                return
            if opcode == _PING:
                send(payload, _PONG)
            elif opcode == _BINARY and payload and payload[0] in connections:
                connections[payload[0]].sendall(payload[1:])
    except OSError:
        return  # either side has gone, which is how a forwarding ends
    finally:
        for connection in connections.values():
            _shut(connection)
        for pump in pumps:
            pump.join()
        for connection in connections.values():
            connection.close()


def _pump(connection: socket.socket, channel: int, send: Callable[..., None]) -> None:
    try:
        while data := connection.recv(65536):
            send(bytes([channel]) + data)
        send(b"", _CLOSE)
    except OSError:
        return  # the client has gone


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # closed by the other side


def _frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        length = bytes([size])
    elif size < 1 << 16:
        length = bytes([126]) + struct.pack(">H", size)
    else:
        length = bytes([127]) + struct.pack(">Q", size)
    return bytes([0x80 | opcode]) + length + payload


def _read(incoming: BinaryIO) -> tuple[int, bytes] | None:
    """Opcode and payload of the next frame, or None at the end."""
    head = incoming.read(2)
    if len(head) < 2:
        return None
    size = head[1] & 0x7F
    if size == 126:
        (size,) = struct.unpack(">H", incoming.read(2))
    elif size == 127:
        (size,) = struct.unpack(">Q", incoming.read(8))
    mask = incoming.read(4) if head[1] & 0x80 else bytes(4)
    payload = incoming.read(size)
    return head[0] & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
