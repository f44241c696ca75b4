"""Consoles for text for people: results go to stdout, everything else to stderr."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import NoReturn, Protocol, TypeVar

from rich.console import Console
from rich.progress import Progress
from rich.text import Text


class _Console(Console):
    """A console that leaves a broken pipe to the verb; rich would end the process itself."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


def stdout() -> Console:
    """Return the console for results, which people copy and programs read."""
    return _Console(highlight=False)


def stderr() -> Console:
    """Return the console for everything else."""
    return _Console(stderr=True, highlight=False)


def say(text: str, console: Console | None = None) -> None:
    """Print a line beside the results; above what is live on a console, if it is that one."""
    (console or stderr()).print(Text(text), soft_wrap=True)


def warn(text: str, console: Console | None = None) -> None:
    """Print a warning: something to know that stops nothing. `console` is as for `say`."""
    (console or stderr()).print(Text("warning: ", "bold yellow") + Text(text), soft_wrap=True)


class Live(Protocol):
    """A listener with a progress bar."""

    progress: Progress


L = TypeVar("L", bound=Live)
P = TypeVar("P")


@contextmanager
def live_or_lines(live: type[L], lines: type[P]) -> Iterator[L | P]:
    """Return a listener until the block ends: with a bar where one can be drawn, else one of plain lines."""
    console = stderr()
    # rich draws a live line in a notebook with ipywidgets alone.
    if find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal:
        listener = live()
        with listener.progress:
            yield listener
    else:
        yield lines()
