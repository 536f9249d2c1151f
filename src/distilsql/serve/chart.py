"""Which chart shows a result, by the types of its columns; the page draws it. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from distilsql.databases.job import Row
from distilsql.serve.cells import Kind

_MOST_BARS = 40
_MOST_POINTS = 1000


@dataclass(frozen=True)
class Chart:
    """`x` and `y` are places of columns: a bar for each category, a line over dates or years, a point for each pair of
    numbers."""

    kind: Literal["bar", "line", "points"]
    x: int
    y: int


def choose_chart(columns: Sequence[str], kinds: Sequence[Kind], rows: Sequence[Row]) -> Chart | None:
    """None where a chart shows no more than the rows do: one row, no number, more bars than can be told apart."""
    if not 2 <= len(rows) <= _MOST_POINTS or any(None in row for row in rows):
        return None
    numbers = [place for place, kind in enumerate(kinds) if kind == "number" and not _is_key(columns[place])]
    years = [place for place in numbers if _is_year(columns[place])]
    values = [place for place in numbers if place not in years]
    others = [place for place, kind in enumerate(kinds) if kind == "text"]
    times = [place for place, kind in enumerate(kinds) if kind == "date"] + years
    if not values:
        return None
    y = values[-1] if len(values) == 1 or others or times else values[1]
    if times and not others:
        return Chart("line", times[0], y) if _all_differ(rows, times[0]) else None
    if others:
        return (
            Chart("bar", others[0], y) if len(rows) <= _MOST_BARS and _all_differ(rows, others[0]) else None
        )
    return Chart("points", values[0], y) if len(values) == 2 else None


def _is_key(column: str) -> bool:
    """A number that names something and measures nothing."""
    name = column.lower().strip('"`').split(".")[-1]
    return name in ("id", "rowid", "code", "zip") or name.endswith(("_id", " id"))


def _is_year(column: str) -> bool:
    return column.lower().split(".")[-1].split("_")[-1] in ("year", "month", "day", "date")


def _all_differ(rows: Sequence[Row], place: int) -> bool:
    return len({row[place] for row in rows}) == len(rows)
