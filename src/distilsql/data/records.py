"""Records: the rows of a question file, each knowing its file and index so that a fault can be named exactly."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distilsql.data.text import NotText, decode, has_text, read_table, suffix_of
from distilsql.databases.url import Place
from distilsql.errors import DataError

ProblemKind = Literal[
    "unreadable",
    "malformed",
    "empty",
    "unknown_db_id",
    "missing_database",
    "gold_fails",
    "gold_tie",
    "slow_gold",
]


TABLE_SUFFIXES = (".csv", ".tsv")


@dataclass(frozen=True)
class Problem:
    """One fault of a benchmark: where it is (`record` counts from 0, as the example ids do) and what to do."""

    kind: ProblemKind
    file: Place
    record: int | None
    field: str
    message: str

    def __str__(self) -> str:
        place = str(self.file)
        if self.record is not None:
            place += f", record {self.record}"
        if self.field:
            place += f", field '{self.field}'"
        return f"{place}: {self.message}"


class RecordError(DataError):
    """A single faulty record or file; carries its Problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True)
class Record:
    """Row `index` (from 0) of `file`."""

    file: Path
    index: int
    fields: dict[str, Any]

    def first_of(self, names: tuple[str, ...]) -> str:
        """The name among `names` that this record has; the first of them if it has none."""
        return next((name for name in names if self.fields.get(name) not in (None, "")), names[0])

    def text(self, *names: str) -> str:
        """The stripped text under the first of `names` that is present. Raises RecordError if none is."""
        name = self.first_of(names)
        value = self.fields.get(name)
        if value is None:
            expected = " or ".join(f"'{candidate}'" for candidate in names)
            raise self.error("malformed", name, f"the field is missing; a record needs {expected}")
        if not isinstance(value, str) or not value.strip():
            raise self.error("malformed", name, f"expected text that is not empty, found {value!r}")
        return value.strip()

    def optional_text(self, name: str) -> str:
        """The stripped text under `name`, or '' where it is absent or null."""
        value = self.fields.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.error("malformed", name, f"expected text, found {value!r}")
        return value.strip()

    def error(self, kind: ProblemKind, field: str, message: str) -> RecordError:
        return RecordError(Problem(kind, self.file, self.index, field, message))


def read_records(file: Path, fields: Collection[str] = ()) -> Iterator[Record | RecordError]:
    """The records of a `.json` list, a `.jsonl` file, or a `.csv` or `.tsv` table, in order.

    `fields` are those that a record may have: they tell a table's header from a row, and its delimiter. A row that
    is not a record comes out as its RecordError, so that a caller can go on and report every fault. Raises RecordError
    if the file as a whole cannot be read.
    """
    suffix = suffix_of(file)
    if suffix == ".jsonl":
        return _read_jsonl(file)
    if suffix in TABLE_SUFFIXES:
        return _read_csv(file, fields)
    return _read_json(file)


def is_there(file: Path) -> bool:
    """Whether there is a file at a path, or something that may not be looked at: reading it then says so."""
    try:
        return file.is_file()
    except PermissionError:
        return True
    except OSError:  # a name that no file can have
        return False


def read_json(file: Path) -> Any:
    """The JSON value in `file`; raises RecordError if it is missing, unreadable or not JSON."""
    try:
        return json.loads(_read_text(file))
    except json.JSONDecodeError as error:
        raise _unreadable(file, f"not valid JSON ({error}); is the file complete?") from error


def _read_json(file: Path) -> Iterator[Record | RecordError]:
    rows = read_json(file)
    if not isinstance(rows, list):
        raise _unreadable(file, f"expected a JSON list of records, found {type(rows).__name__}")
    return (_record(file, index, row) for index, row in enumerate(rows))


def _read_jsonl(file: Path) -> Iterator[Record | RecordError]:
    lines = [line for line in _read_text(file).split("\n") if line.strip()]
    return (_jsonl_record(file, index, line) for index, line in enumerate(lines))


def _jsonl_record(file: Path, index: int, line: str) -> Record | RecordError:
    try:
        return _record(file, index, json.loads(line))
    except json.JSONDecodeError as error:
        return RecordError(Problem("malformed", file, index, "", f"the line is not valid JSON ({error})"))


def _read_csv(file: Path, fields: Collection[str]) -> Iterator[Record | RecordError]:
    try:
        table = read_table(_read_text(file), fields)
    except RecordError:
        raise
    except DataError as error:
        raise _unreadable(file, str(error)) from error
    names = {column: _field_for(column, fields, table.header) for column in table.header}
    if names and fields and not set(fields) & set(names.values()):
        raise _unreadable(
            file,
            f"its first line must be a header with {' or '.join(fields)}, but has: {', '.join(names)}; "
            "write the names of the columns into the first line",
        )
    filled = [row for _, row in table.rows if any(map(has_text, row.values()))]  # spreadsheets add blank rows
    return (_csv_record(file, index, row, names) for index, row in enumerate(filled))


def _field_for(column: str, fields: Collection[str], header: Collection[str]) -> str:
    """The field that a column is, in any case: `Question` is `question` where no column is called so itself."""
    lower = {name.lower(): name for name in reversed(tuple(fields))}
    meant = lower.get(column.lower(), column)
    return column if column in fields or meant in header else meant


def _csv_record(
    file: Path, index: int, row: dict[str | None, Any], names: Mapping[str, str]
) -> Record | RecordError:
    # Surplus cells are under None: the sign of a comma in an unquoted question or query, unless they are blank.
    if has_text(row.pop(None, [])):
        message = "more cells than the header has; quote text that holds a comma"
        return RecordError(Problem("malformed", file, index, "", message))
    return _record(file, index, {names[column]: cell for column, cell in row.items() if column is not None})


def _record(file: Path, index: int, row: Any) -> Record | RecordError:
    if not isinstance(row, dict):
        message = f"expected an object with fields, found {type(row).__name__}"
        return RecordError(Problem("malformed", file, index, "", message))
    return Record(file, index, row)


def _read_text(file: Path) -> str:
    try:
        return decode(file.read_bytes()).replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError as error:
        raise _unreadable(file, "the file does not exist") from error
    except OSError as error:
        raise _unreadable(file, f"cannot be read ({error.strerror})") from error
    except NotText as error:
        raise _unreadable(file, str(error)) from error


def _unreadable(file: Path, message: str) -> RecordError:
    return RecordError(Problem("unreadable", file, None, "", message))
