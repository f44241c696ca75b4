"""HTML of what the page is made of. All text that comes in is escaped here, if it is not named `markup`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from raystack.tuning.summary import given_text


def section(title: str, markup: str, name: str = "") -> str:
    """Return a part of the page with a heading."""
    mark = f' id="{name}"' if name else ""
    return f"<section{mark}><h2>{escape(title)}</h2>{markup}</section>"


def tile(value: object, text: str, mark: str = "") -> str:
    """Return a number with what it counts below."""
    return f'<li class="{mark}"><b>{escape(str(value))}</b> {escape(text)}</li>'


def grid(head: Sequence[str], rows: Iterable[Sequence[str]], mark: str = "") -> str:
    """Return a table of cells that are markup already."""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="scroll"><table class="{mark}"><tr>{columns}</tr>{lines}</table></div>'


def cell(text: str, sort: Any = None, mark: str = "") -> str:
    """Return a cell; a number `sort` stands to the right, and has its full value for sorting."""
    is_number = isinstance(sort, (int, float)) and not isinstance(sort, bool)
    key = f' data-sort="{sort!r}"' if is_number and math.isfinite(sort) else ""
    classes = f"number {mark}".strip() if is_number else mark
    classed = f' class="{classes}"' if classes else ""
    return f"<td{classed}{key}>{escape(text)}</td>"


def diff(pairs: Mapping[str, tuple[Any, Any]], columns: tuple[str, str], mark: str = "") -> str:
    """Return a table of two values by path."""
    rows = (
        (f'<th scope="row">{escape(path)}</th>', cell(_value(before)), cell(_value(now)))
        for path, (before, now) in pairs.items()
    )
    return grid(("", *columns), rows, f"diff {mark}".strip())


def figure(title: str, names: Sequence[str], caption: str, style: str = "") -> str:
    """Return a section with places for figures; without a title it goes on with the one before."""
    place = f' style="{style}"' if style else ""
    plots = "".join(
        f'<div class="scroll"><div class="plot" id="{name}"{place}></div></div>' for name in names
    )
    markup = f"<figure>{plots}<figcaption>{escape(caption)}</figcaption></figure>"
    return section(title, markup) if title else f"<section>{markup}</section>"


def _value(given: Any) -> str:
    return repr(given) if isinstance(given, float) else given_text(given)
