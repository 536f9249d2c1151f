"""Rows of a result as pages, clients and spreadsheets take them: JSON, kinds of columns, CSV. Imports no torch."""

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from typing import Literal

from distilsql.databases.job import Cell, Row

Kind = Literal["number", "date", "text"]
JsonCell = None | bool | int | float | str

# Beyond these a browser's numbers are not whole numbers any more.
_LARGEST_WHOLE = 2**53
_MOST_BYTES_SHOWN = 64
_DATE = re.compile(r"\d{4}-\d{2}(-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?)?")
# What a spreadsheet takes a cell's first character for: the beginning of a formula (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def json_cell(cell: Cell) -> JsonCell:
    """A number as a number where a browser keeps it whole, else its text; bytes as SQL writes them, the first 64."""
    if isinstance(cell, bytes):
        more = "…" if len(cell) > _MOST_BYTES_SHOWN else ""
        return f"x'{cell[:_MOST_BYTES_SHOWN].hex()}{more}'"
    if isinstance(cell, float) and not math.isfinite(cell):
        return str(cell)
    if isinstance(cell, int) and abs(cell) >= _LARGEST_WHOLE:
        return str(cell)
    return cell


def column_kinds(columns: Sequence[str], rows: Sequence[Row]) -> list[Kind]:
    """What each column holds, NULL aside: numbers alone, ISO dates alone, or anything."""
    return [_kind([row[place] for row in rows if row[place] is not None]) for place in range(len(columns))]


def _kind(cells: Sequence[Cell]) -> Kind:
    if cells and all(isinstance(cell, int | float) for cell in cells):
        return "number"
    if cells and all(isinstance(cell, str) and _DATE.fullmatch(cell) for cell in cells):
        return "date"
    return "text"


def csv_text(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """Comma-separated values with a header, lines ending in CRLF (RFC 4180). What a spreadsheet would run as a formula
    begins with an apostrophe; NULL is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(map(_harmless, columns))
    for row in rows:
        writer.writerow([_harmless("" if cell is None else json_cell(cell)) for cell in row])
    return out.getvalue()


def _harmless(cell: JsonCell) -> JsonCell:
    """A text that begins as a formula is shown as text; a negative number is a number."""
    is_formula = isinstance(cell, str) and cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell)
    return f"'{cell}" if is_formula else cell
