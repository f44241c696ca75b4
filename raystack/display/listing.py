"""Pairs and tables on stdout, and a bar while something long is read."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from raystack.display.console import stderr, stdout


def show_table(rows: Sequence[Mapping[str, str]]) -> None:
    """Print a table with unwrapped columns; the keys of the first row are the header."""
    names = list(rows[0])
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    console = stdout()
    console.print(
        Text("  ".join(f"{name:<{widths[name]}}" for name in names).rstrip(), "bold"), soft_wrap=True
    )
    for row in rows:
        console.print(
            Text("  ".join(f"{row[name]:<{widths[name]}}" for name in names).rstrip()), soft_wrap=True
        )


def show_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Print two columns without wrapping: they are copied, and read by other programs."""
    width = max(len(what) for what, _ in pairs)
    console = stdout()
    for what, value in pairs:
        console.print(Text(f"{what:<{width}}  ", "bold") + Text(value), soft_wrap=True)


@contextmanager
def reading(total: int) -> Iterator[Callable[[int], None]]:
    """Show how much of `total` bytes is read.

    Call the result with the size of each piece. Silent without a terminal.
    """
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), transient=True) as progress:
        bar = progress.add_task("", total=total)
        yield lambda count: progress.advance(bar, count)
