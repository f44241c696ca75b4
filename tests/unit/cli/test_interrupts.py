"""Signals in a command that owns its process: its status and its line, whatever the signal meets."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import os, signal, sys, time
from raystack import interrupts
from raystack.interrupts import Interrupts, graceful, tell
interrupts.SAME_S = 0.2

def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)

handled = Interrupts()
handled.install()
"""


WATCHED = ("env", "--default-signal=INT")
"""Words before a command, as a terminal starts it; a shell's background job ignores SIGINT."""


def run(folder: Path, body: str, words: tuple[str, ...] = WATCHED) -> "subprocess.CompletedProcess[str]":
    """A command, started as `python -m`."""
    (folder / "command.py").write_text(RUN + body)
    return subprocess.run(
        [*words, sys.executable, "-m", "command"], cwd=folder, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_was_caught_leaves_the_status_to_the_command(
    tmp_path: Path, number: signal.Signals
) -> None:
    # Python ends itself by SIGINT where the exception has left an `exec`, as of a dataclass.
    body = f"""
try:
    exec("send({int(number)})")
except KeyboardInterrupt:
    tell()
handled.over(130)
sys.exit(130)
"""
    done = run(tmp_path, body)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_an_interrupt_that_is_lost_in_a_destructor_is_raised_again(tmp_path: Path) -> None:
    body = """
class Loses:
    def __del__(self):
        send()

try:
    Loses()
    time.sleep(30)
except KeyboardInterrupt:
    print("raised")
"""
    done = run(tmp_path, body)
    assert (done.returncode, done.stdout, done.stderr) == (0, "raised\n", "")


def test_an_import_is_not_interrupted_but_what_follows_it(tmp_path: Path) -> None:
    (tmp_path / "imported.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nprint('imported')\n"
    )
    body = """
try:
    import imported
    time.sleep(30)
except KeyboardInterrupt:
    print("raised")
"""
    assert run(tmp_path, body).stdout == "imported\nraised\n"


def test_a_run_that_begins_after_such_an_import_is_asked_to_stop(tmp_path: Path) -> None:
    (tmp_path / "imported.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    body = """
interrupts.END_S = 0.3
import imported
asked = []
with graceful(lambda: asked.append(1)):
    time.sleep(1)
print("asked", len(asked))
"""
    assert run(tmp_path, body).stdout == "asked 1\n"


def test_an_interrupt_that_is_swallowed_ends_the_command_after_a_time(tmp_path: Path) -> None:
    body = """
interrupts.END_S = 0.3
try:
    send()
except BaseException:
    pass
time.sleep(30)
"""
    done = run(tmp_path, body)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_a_second_signal_ends_the_command_at_once_and_what_it_has_started(tmp_path: Path) -> None:
    body = """
with interrupts.leaving(lambda: print("ended", flush=True)):
    try:
        send()
    except KeyboardInterrupt:
        send()  # as from `timeout`, which sends it twice
        time.sleep(0.3)
        send(signal.SIGINT)
        time.sleep(30)
"""
    done = run(tmp_path, body)
    assert (done.returncode, done.stdout, done.stderr) == (130, "ended\n", "interrupted\n")


def test_a_request_to_stop_may_come_twice_and_another_one_interrupts(tmp_path: Path) -> None:
    body = """
asked = []
try:
    with graceful(lambda: asked.append(1)):
        send()
        send()
        print("asked", len(asked), flush=True)
        time.sleep(0.3)
        send()
        time.sleep(30)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = run(tmp_path, body)
    assert done.stdout == "asked 1\ninterrupted\n"


def test_a_signal_after_the_end_does_not_change_the_status(tmp_path: Path) -> None:
    body = """
import atexit
atexit.register(send)
handled.over(5)
sys.exit(5)
"""
    done = run(tmp_path, body)
    assert (done.returncode, done.stderr) == (5, "")


def test_a_fork_has_none_of_it(tmp_path: Path) -> None:
    body = """
with graceful(lambda: None):
    if (child := os.fork()) == 0:
        send()
        time.sleep(30)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(tmp_path, body).stdout == f"-{int(signal.SIGTERM)}\n"


def test_sigint_stays_ignored_where_a_shell_has_said_so(tmp_path: Path) -> None:
    body = """
send(signal.SIGINT)
print("goes on")
"""
    done = run(tmp_path, body, ("sh", "-c", "trap '' INT; exec \"$@\"", "sh"))
    assert (done.returncode, done.stdout) == (0, "goes on\n")


DEFERRED = """
def block(seconds):
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(left)
"""


@pytest.mark.parametrize("times", [1, 2])
def test_what_must_not_be_interrupted_is_not_but_what_follows_it(times: int, tmp_path: Path) -> None:
    body = f"""{DEFERRED}
other = interrupts.start_deaf(lambda: block(30), "other")
try:
    with interrupts.deferred():
        for _ in range({times}):  # at the same moment, as from `timeout`
            send()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as a library may
        block(0.5)
        signal.signal(signal.SIGTERM, handled._handle)
        print("whole")
    block(30)
except KeyboardInterrupt:
    print("raised")
"""
    done = run(tmp_path, body)
    assert (done.returncode, done.stdout, done.stderr) == (0, "whole\nraised\n", "")


@pytest.mark.parametrize("ends_by", ["a second signal", "the time"])
def test_what_must_not_be_interrupted_does_not_hold_up_the_end(ends_by: str, tmp_path: Path) -> None:
    second = "time.sleep(0.4); send()" if ends_by == "a second signal" else "interrupts.END_S = 0.5"
    body = f"""
with interrupts.leaving(lambda: print("ended", flush=True)), interrupts.deferred():
    send()
    {second}
    time.sleep(30)
"""
    done = run(tmp_path, body)
    assert (done.returncode, done.stdout, done.stderr) == (130, "ended\n", "interrupted\n")


def test_a_signal_that_is_ignored_is_ignored_there_too(tmp_path: Path) -> None:
    body = """
with interrupts.deferred():
    send(signal.SIGINT)
print("goes on")
"""
    done = run(tmp_path, body, ("sh", "-c", "trap '' INT; exec \"$@\"", "sh"))
    assert (done.returncode, done.stdout) == (0, "goes on\n")


def test_an_error_of_what_the_interrupted_code_does_at_its_end_is_the_interrupt(tmp_path: Path) -> None:
    body = """
import raystack.cli.main
from raystack.cli.process import run

def interrupted(*, verb):
    try:
        send()
        file = None
    finally:
        file.close()

raystack.cli.main.main = interrupted
sys.exit(run("train"))
"""
    done = run(tmp_path, body)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
