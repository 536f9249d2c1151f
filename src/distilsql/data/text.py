"""Text files as people have them: what a file is if it is no text, UTF-16, and tables as spreadsheets write them."""

import csv
import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilsql.errors import DataError

# How files begin that are no text, whatever they are called.
_MAGIC = (
    (b"SQLite format 3\0", "a SQLite database"),
    (b"\x1f\x8b", "gzip-compressed"),
    (b"PK\x03\x04", "a zip archive, as .xlsx is"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed"),
    (b"PAR1", "a Parquet file"),
    (b"%PDF", "a PDF"),
)
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_DELIMITERS = (",", ";", "\t")


class NotText(DataError):
    """What a file is instead of text; `str` is a clause that goes after the file's name."""


@dataclass(frozen=True)
class CsvTable:
    """A CSV file: its header, and each row with the line that it ends on. Surplus cells of a row are under None."""

    header: tuple[str, ...]
    rows: tuple[tuple[int, dict[str | None, Any]], ...]

    def column(self, names: Collection[str]) -> str | None:
        """The first of `names` that the header has, else in another case; None if it has none."""
        exact = next((name for name in names if name in self.header), None)
        if exact is not None:
            return exact
        by_lower = {column.lower(): column for column in reversed(self.header)}
        return next((by_lower[name.lower()] for name in names if name.lower() in by_lower), None)


def has_text(cell: Any) -> bool:
    """Whether a cell, or any cell of a list, is more than blanks."""
    return any(map(has_text, cell)) if isinstance(cell, list) else bool(cell and cell.strip())


def suffix_of(path: Path) -> str:
    """`.jsonl` of `PAIRS.JSONL`, too."""
    return path.suffix.lower()


def decode(raw: bytes) -> str:
    """UTF-8 with or without a byte-order mark, or UTF-16 with one. Raises NotText that says what it is instead."""
    for magic, what in _MAGIC:
        if raw.startswith(magic):
            raise NotText(f"is not UTF-8 text but {what}")
    is_utf16 = raw.startswith(_UTF16_MARKS) and len(raw) > 2
    try:
        text = raw.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotText(
            f"is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    if "\0" in text:
        raise NotText(f"is not text: it has a NUL character after {text.index(chr(0))} others")
    return text


def read_table(text: str, known: Collection[str]) -> CsvTable:
    """A CSV file with commas, semicolons or tabs: what cuts the first line into most of the column names `known`.

    A line `sep=;`, as Excel understands it, says so itself. Raises DataError, a clause that goes after the file's name,
    if the header names a column twice or a quote is not closed.
    """
    delimiter, skipped = None, 0
    first, _, rest = text.partition("\n")
    if first.strip().lower()[:4] == "sep=" and len(first.strip()) == 5:
        delimiter, skipped, text = first.strip()[4], 1, rest
    delimiter = delimiter or _delimiter(text, known)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    try:
        rows = tuple((reader.line_num + skipped, row) for row in reader)
        header = tuple(name.strip() for name in reader.fieldnames or ())
    except csv.Error as error:
        raise DataError(
            f"is not valid CSV at line {reader.line_num + skipped} ({error}); is there a quote that is not closed "
            "before it?"
        ) from error
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"has the column '{twice}' twice; keep one, or give each its own name")
    return CsvTable(header, tuple((line, _stripped_names(row)) for line, row in rows))


def _stripped_names(row: dict[Any, Any]) -> dict[str | None, Any]:
    return {name if name is None else name.strip(): cell for name, cell in row.items()}


def _delimiter(text: str, known: Collection[str]) -> str:
    lower = {name.lower() for name in known}

    def names(delimiter: str) -> int:
        try:
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        except csv.Error:
            return 0
        return len(lower & {cell.strip().lower() for cell in header})

    return max(_DELIMITERS, key=names)  # the first of equals: a comma
