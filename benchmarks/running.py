"""How the benchmarks run commands: each as typed in a shell, in a session and a folder of its own, that leave
nothing behind.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def workplace(parent: Path | None = None) -> Iterator[Path]:
    """A folder that is gone after the block. Short, because Ray puts sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=parent))
    try:
        yield folder
    finally:
        remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder that Ray's processes may still be writing to: they end a moment after the command."""
    deadline = time.monotonic() + 10
    while folder.is_dir() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1)


def turn(names: Sequence[str], number: int) -> list[str]:
    """`names` in the order of round `number`: each round another one comes first, because a machine drifts
    over minutes.
    """
    first = number % len(names)
    return [*names[first:], *names[:first]]


def execute(
    command: Sequence[str], folder: Path, timeout_s: float, variables: Mapping[str, str] | None = None
) -> None:
    """Run `command` to its end; SystemExit with the end of its output if it fails or takes longer than
    `timeout_s`.
    """
    with running(command, folder, variables) as process:
        try:
            status: int | None = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = None
    if status != 0:
        how = f"did not end within {timeout_s:g} s" if status is None else f"ended with status {status}"
        raise SystemExit(f"{' '.join(command)}\n{how}:\n{tail(folder)}")


@contextmanager
def running(
    command: Sequence[str], folder: Path, variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """`command`, started in a session of its own; what is left of it after the block is ended."""
    with _output(folder).open("w") as file:
        environment = {**_environment(folder), **(variables or {})}
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True
        )
        try:
            yield process
        finally:
            _end(process)


def tail(folder: Path) -> str:
    """The last lines of what the command in `folder` wrote."""
    return "\n".join(_output(folder).read_text(errors="replace").splitlines()[-20:])


def _output(folder: Path) -> Path:
    return folder / "output.txt"


def _environment(folder: Path) -> dict[str, str]:
    """Everything that a run writes goes below its folder; no cluster that is already up is joined."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "RAYSTACK_", "MLFLOW_"))
    }
    paths = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(paths)}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command politely, so that it stops its Ray, and then what is left in its process group."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
