"""The end of a verb: an exit status, and one line per problem instead of a traceback."""

import errno
import os
import stat
import sys
import traceback
from collections.abc import Callable
from typing import Any

from rich.text import Text

from raystack import logs
from raystack.cli.terminal import Terminal
from raystack.cli.verb import Verb
from raystack.display.console import stderr
from raystack.errors import LaunchError, PausedError, RaystackError
from raystack.interrupts import INTERRUPTED, WORD

CUT_OFF = 141


def execute(verb: Verb, options: Any) -> int:
    """Run `verb` with what was typed, and return its exit status."""
    verbose, as_json = getattr(options, "verbose", False), getattr(options, "json", False)
    logs.setup(verbose=verbose)
    return guard(lambda: verb.run(options, Terminal(as_json=as_json)), verbose=verbose)


def guard(action: Callable[[], int | None], *, verbose: bool) -> int:
    """Run a verb and return its exit status.

    An error is shown in one line per problem, with a traceback if `verbose`.
    """
    try:
        status = action() or 0
        sys.stdout.flush()
        return status
    except RaystackError as error:
        return _show(error, verbose=verbose)
    except KeyboardInterrupt:
        stderr().print(WORD, style="yellow")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has read enough, as `head` does.
        _forget_output()
        return CUT_OFF
    except OSError as error:
        if not _is_of_output(error):
            raise
        _forget_output()
        stderr().print(Text("error: ", "bold red") + Text(f"stdout: {error.strerror}"), soft_wrap=True)
        return LaunchError.exit_code


def _show(error: RaystackError, *, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    elif error.trace is not None:
        stderr().print(Text(error.trace, "dim"), soft_wrap=True)
    paused = isinstance(error, PausedError)
    label = Text("paused: ", "bold yellow") if paused else Text("error: ", "bold red")
    for problem in error.problems:
        stderr().print(label + Text(str(problem)), soft_wrap=True)
    return error.exit_code


def _is_of_output(error: OSError) -> bool:
    """Return whether `error` is about the output stream and not about a file that the verb works on."""
    # An error of a file that was opened by its name has that name; storage has errors of its own.
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO) and error.filename is None
    return full and not (sys.stdout.isatty() or stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode))


def _forget_output() -> None:
    """Point stdout at the null device, so that the interpreter's last flush cannot fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
