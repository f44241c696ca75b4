"""A process that has imported what takes seconds to import, and forks one for each command of the tests.

A command runs as after `python -m`: with its own arguments, environment and output, in the repository's root.
It is for commands in one process. One that starts or joins a Ray takes a process of its own, because Ray
reads its settings when it is imported.
"""

import atexit
import gc
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from processes import ROOT, kill_session, stop
from started import ORDINARY

IMPORTS = (
    "alembic.command",
    "hydra",
    "mlflow.store.tracking.sqlalchemy_store",
    "pydantic",
    "ray.train",
    "rich.console",
    "safetensors.torch",
    "sklearn.datasets",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
)
"""None of raystack's own modules: a command still shows what they do at their import."""


class Warm:
    """Runs commands as an ordinary user; the process starts with the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def run(
        self, *words: str, environment: Mapping[str, str] | None = None, timeout: float = 120
    ) -> "subprocess.CompletedProcess[str]":
        """What `python -m` with these words does."""
        request = {"argv": words, "environment": dict(os.environ if environment is None else environment)}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, self._connected() as server:
            socket.send_fds(server, [json.dumps(request).encode()], [out.fileno(), err.fileno()])
            server.shutdown(socket.SHUT_WR)
            server.settimeout(timeout)
            with server.makefile() as answers:
                pid = int(answers.readline())
                try:
                    status = int(answers.readline())
                except TimeoutError:
                    kill_session(pid)
                    raise
            written = [_text(file.fileno()) for file in (out, err)]
        return subprocess.CompletedProcess(words, status, *written)

    def close(self) -> None:
        if self._process is not None:
            stop(self._process)

    def _connected(self) -> socket.socket:
        place = str(self._folder / "warm")
        if self._process is None:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(place)
                listener.listen()
                self._process = subprocess.Popen(
                    [*ORDINARY, sys.executable, __file__, str(listener.fileno())],
                    cwd=ROOT,
                    pass_fds=[listener.fileno()],
                    start_new_session=True,
                )
        server = socket.socket(socket.AF_UNIX)
        server.settimeout(60)
        server.connect(place)
        return server


def _text(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, closefd=False, encoding="utf-8") as file:
        return file.read()


def serve(listener: socket.socket) -> list[str]:
    """Fork for each request, and send its process id and its status. Returns, in the fork, what it is to
    run, and nothing at the end of the tests' process.
    """
    for name in IMPORTS:
        __import__(name)
    gc.freeze()  # so that a fork does not look through it, which would copy it
    parent = os.getppid()
    listener.settimeout(5)
    while os.getppid() == parent:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        data, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 2)
        while more := connection.recv(1 << 20):
            data += more
        if (pid := os.fork()) == 0:
            listener.close()
            connection.close()
            return _become(json.loads(data), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(BrokenPipeError), connection, connection.makefile("w") as answers:
            print(pid, file=answers, flush=True)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answers)
    return []


def _become(request: dict[str, Any], descriptors: list[int]) -> list[str]:
    os.setsid()
    for descriptor, standard in zip(descriptors, (1, 2), strict=True):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    return list(request["argv"])


def execute(module: str, *arguments: str) -> int:
    """The status of `python -m` with these words."""
    sys.path[0] = os.getcwd()
    sys.argv = ["-m", *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def leave() -> None:
    """End at once, without taking apart what was imported, which takes seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_STATUSES[-1])


_STATUSES = [0]

if __name__ == "__main__":
    atexit.register(leave)  # the first to register is the last to run
    if words := serve(socket.socket(fileno=int(sys.argv[1]))):
        _STATUSES.append(execute(*words))
