"""A rollout that is watched: live tables on a terminal, a line for each decision elsewhere."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raystack.display.console import say, stderr

Pairs = Sequence[tuple[str, str]]
Rows = Sequence[Mapping[str, str]]
Show = Callable[[Pairs, Sequence[Rows]], None]
"""Show pairs, and tables below them."""


@contextmanager
def shown_rollout() -> Iterator[Show]:
    """Return what shows a rollout again and again until the block ends; its last tables stay."""
    console = stderr()
    if not console.is_terminal or console.is_jupyter:
        yield _Lines()
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda pairs, tables: live.update(_drawn(pairs, tables, console), refresh=True)


class _Lines:
    """Plain lines for logs: what has changed of the status and the last decision."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def __call__(self, pairs: Pairs, tables: Sequence[Rows]) -> None:
        for what, value in pairs:
            if what in ("status", "last", "trouble") and self._said.get(what) != value:
                say(f"{what}: {value}")
                self._said[what] = value


def _drawn(pairs: Pairs, tables: Sequence[Rows], console: Console) -> RenderableType:
    head = Table.grid(padding=(0, 2, 0, 0))
    head.add_column(no_wrap=True, style="bold")
    head.add_column(overflow="fold", max_width=max(20, console.width - 14))
    for what, value in pairs:
        head.add_row(Text(what), Text(value))
    return Group(head, *(_table(rows) for rows in tables if rows))


def _table(rows: Rows) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, name in enumerate(rows[0]):
        table.add_column(Text(name), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row.values()))
    return table
