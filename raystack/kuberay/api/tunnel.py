"""Local port that forwards connections elsewhere.

In: a function that connects to the target. Out: a local port for the duration of a block.

Each connection dials anew, so the tunnel survives outages of its target.
"""

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from raystack.errors import LaunchError

logger = logging.getLogger(__name__)

BLOCK = 64 * 2**10


class Stream(Protocol):
    """Methods that the tunnel uses of a connected socket."""

    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, data: bytes, /) -> object: ...
    def shutdown(self, how: int, /) -> object: ...
    def close(self) -> object: ...


@contextmanager
def tunnel(dial: Callable[[], Stream]) -> Iterator[int]:
    """Yield a free port on 127.0.0.1 whose connections are forwarded.

    Connections end with the block. If dialling fails, the local connection is closed and a warning is logged.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)  # so that `accept` notices the end of the block
        closing, open_streams, lock = threading.Event(), set[Stream](), threading.Lock()

        def serve(local: socket.socket) -> None:
            try:
                remote = dial()
            except LaunchError as error:
                logger.warning("a connection was refused: %s", error)
                local.close()
                return
            ends: tuple[Stream, Stream] = (local, remote)
            with lock:
                open_streams.update(ends)
            # The block may have ended while this thread was dialling: its streams were not hung up then.
            if closing.is_set():
                _hang_up(ends)
            back = _started("raystack-tunnel-back", _copy, remote, local)
            _copy(local, remote)
            back.join()
            with lock:
                open_streams.difference_update(ends)
            local.close()
            remote.close()

        threads: list[threading.Thread] = []

        def accept() -> None:
            while not closing.is_set():
                with suppress(TimeoutError):
                    local, _ = server.accept()
                    local.settimeout(None)
                    threads[:] = [other for other in threads if other.is_alive()]
                    threads.append(_started("raystack-tunnel", serve, local))

        acceptor = _started("raystack-tunnel-accept", accept)
        try:
            yield server.getsockname()[1]
        finally:
            closing.set()
            acceptor.join()
            with lock:
                _hang_up(tuple(open_streams))
            for thread in threads:
                thread.join()


def _started(name: str, target: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    thread.start()
    return thread


def _copy(source: Stream, sink: Stream) -> None:
    """Copy until either side ends, then close both."""
    with suppress(OSError):
        while data := source.recv(BLOCK):
            sink.sendall(data)
    # Port-forwarding knows no half-closed connections.
    _hang_up((source, sink))


def _hang_up(streams: tuple[Stream, ...]) -> None:
    for stream in streams:
        with suppress(OSError):
            stream.shutdown(socket.SHUT_RDWR)
