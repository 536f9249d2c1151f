"""Records: the rows of a question file, each knowing its file and index so that a fault can be named exactly."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distilsql.errors import DataError

ProblemKind = Literal["unreadable", "malformed", "unknown_db_id", "missing_database", "gold_fails"]


@dataclass(frozen=True)
class Problem:
    """One fault of a benchmark: where it is (`record` counts from 0, as the example ids do) and what to do."""

    kind: ProblemKind
    file: Path
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


def read_records(file: Path) -> Iterator[Record | RecordError]:
    """The records of a `.json` list, a `.jsonl` or a `.csv` file, in order.

    A row that is not a record comes out as its RecordError, so that a caller can go on and report every fault.
    Raises RecordError if the file as a whole cannot be read.
    """
    if file.suffix == ".jsonl":
        return _read_jsonl(file)
    if file.suffix == ".csv":
        return _read_csv(file)
    return _read_json(file)


def read_json(file: Path) -> Any:
    """The JSON value in `file`; raises RecordError if it is missing, unreadable or not JSON."""
    try:
        return json.loads(_read_text(file))
    except json.JSONDecodeError as error:
        raise _unreadable(file, f"not valid JSON ({error}); is the download complete?") from error


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


def _read_csv(file: Path) -> Iterator[Record | RecordError]:
    reader = csv.DictReader(io.StringIO(_read_text(file), newline=""), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise _unreadable(file, csv_fault(reader, error)) from error
    return (_csv_record(file, index, row) for index, row in enumerate(rows))


def csv_fault(reader: "csv.DictReader[str]", error: csv.Error) -> str:
    """What is wrong with a CSV file that is read with `strict`, and where to look."""
    return f"is not valid CSV at line {reader.line_num} ({error}); is there a quote that is not closed before it?"


def _csv_record(file: Path, index: int, row: dict[str | None, Any]) -> Record | RecordError:
    # DictReader files surplus cells under None: the sign of a comma in an unquoted question or query.
    if None in row:
        message = "more cells than the header has; quote text that holds a comma"
        return RecordError(Problem("malformed", file, index, "", message))
    return _record(file, index, row)


def _record(file: Path, index: int, row: Any) -> Record | RecordError:
    if not isinstance(row, dict):
        message = f"expected an object with fields, found {type(row).__name__}"
        return RecordError(Problem("malformed", file, index, "", message))
    return Record(file, index, row)


def _read_text(file: Path) -> str:
    try:
        # -sig: spreadsheets begin their CSV exports with a byte-order mark.
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise _unreadable(file, "the file does not exist") from error
    except OSError as error:
        raise _unreadable(file, f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise _unreadable(file, f"is not UTF-8 text ({error.reason} at byte {error.start})") from error


def _unreadable(file: Path, message: str) -> RecordError:
    return RecordError(Problem("unreadable", file, None, "", message))
