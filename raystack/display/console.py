"""Consoles for text for people: results go to stdout, everything else to stderr."""

from typing import NoReturn

from rich.console import Console
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
