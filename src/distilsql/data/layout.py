"""Layout: where the files of a benchmark lie, and the one reader that turns them into examples and problems."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from distilsql.data.example import Example
from distilsql.data.records import Problem, Record, RecordError, is_there, read_records
from distilsql.databases.job import Decoding
from distilsql.databases.schema import Comments
from distilsql.databases.url import Place, file_of

# Whose rules judge: an official evaluator's, or "plain" for own pairs, whose SQL is run as it stands.
Evaluator = Literal["spider", "bird", "plain"]
# Text that is not UTF-8: Spider's evaluator reads past it, in BIRD's the query fails.
DECODING: dict[Evaluator, Decoding] = {"spider": "ignore", "bird": "strict", "plain": "ignore"}


def _everything(examples: Sequence[Example]) -> Sequence[Example]:
    return examples


def _no_comments(db_id: str, path: Any) -> Comments:
    return Comments({}, {})


@dataclass(frozen=True)
class Layout:
    """A benchmark not yet read: where its files lie, and what their records look like.

    `locate` gives a record's db_id and database (whose file need not exist) or raises RecordError; `comments`
    gives what is known of a database beyond its file; `part` picks the examples that belong, from all of them. Without
    `needs_gold` a record may lack its SQL: the example's is then ''. With `ids_by_content` an example is known by its
    record's `example_id`, or else by what it asks, whatever stands before it in the file; without, by its place.
    """

    name: str
    files: tuple[Path, ...]
    locate: Callable[[Record], tuple[str, Place]]
    question_fields: tuple[str, ...] = ("question",)
    sql_fields: tuple[str, ...] = ("query",)
    with_evidence: bool = False
    evaluator: Evaluator = "spider"
    comments: Callable[[str, Any], Comments] = _no_comments
    part: Callable[[Sequence[Example]], Sequence[Example]] = _everything
    needs_gold: bool = True
    ids_by_content: bool = False


@dataclass(frozen=True)
class Reading:
    """What reading a benchmark gave. `examples` leaves out faulty records, and keeps those without a database file.

    `found` counts the records, faulty ones too. `paths` maps db_id to the database, `records` example_id to the
    record it came from; `missing` names the examples whose database file does not exist.
    """

    examples: tuple[Example, ...]
    found: int
    paths: dict[str, Place]
    records: dict[str, Record]
    missing: dict[str, Problem] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def read_layout(layout: Layout) -> Reading:
    """Read every record of a benchmark; faults become problems, so that all of them can be reported at once."""
    paths: dict[str, Place] = {}
    problems: list[Problem] = []
    read = [pair for file in layout.files for pair in _read_file(layout, file, paths, problems)]
    if layout.ids_by_content:
        read = _known_by_content(read, problems)
    examples = tuple(layout.part([example for example, _ in read]))
    records = {example.example_id: record for example, record in read}
    faulty = {(problem.file, problem.record) for problem in problems if problem.record is not None}
    return Reading(
        examples,
        len(read) + len(faulty),
        paths,
        records,
        _missing(examples, paths, records),
        tuple(problems),
    )


def place_id(record: Record) -> str:
    """How a record is called by its place: `dev/0`."""
    return f"{record.file.stem}/{record.index}"


def _known_by_content(
    read: Sequence[tuple[Example, Record]], problems: list[Problem]
) -> list[tuple[Example, Record]]:
    """The same examples with ids that no other record of the file has a say in, but for those that ask the same.

    The gold is no part of an id: it may be repaired.
    """
    known: list[tuple[Example, Record]] = []
    taken: set[str] = set()
    asked: Counter[str] = Counter()
    for example, record in read:
        own_id = record.optional_text("example_id")
        if own_id in taken:
            message = f"a second record has the id {own_id!r}; give each its own, or none"
            problems.append(record.error("malformed", "example_id", message).problem)
            continue
        content = f"{record.optional_text('db_id')}\0{example.question}"
        asked[content] += 1
        digest = hashlib.sha256(f"{content}\0{asked[content]}".encode(errors="surrogatepass")).hexdigest()
        example_id = own_id or f"{record.file.stem}/{digest[:8]}"
        while example_id in taken:  # two of 2^32 that are alike
            digest = hashlib.sha256(digest.encode()).hexdigest()
            example_id = f"{record.file.stem}/{digest[:8]}"
        taken.add(example_id)
        known.append((replace(example, example_id=example_id), record))
    return known


def _read_file(
    layout: Layout, file: Path, paths: dict[str, Place], problems: list[Problem]
) -> Iterator[tuple[Example, Record]]:
    """The good records of one file; enters databases into `paths` and faults into `problems`."""
    is_empty = True
    fields = (*layout.question_fields, *layout.sql_fields)
    try:
        for row in read_records(file, fields):
            is_empty = False
            if isinstance(row, RecordError):
                problems.append(row.problem)
                continue
            try:
                yield _read_example(layout, row, paths), row
            except RecordError as error:
                if error.problem.file != file:  # a fault of tables.json, which every record would meet again
                    raise
                problems.append(error.problem)
        if is_empty:
            raise RecordError(Problem("empty", file, None, "", "holds no pairs of a question and its SQL"))
    except RecordError as error:
        problems.append(error.problem)


def _read_example(layout: Layout, row: Record, paths: dict[str, Place]) -> Example:
    """The Example in `row`; enters its database into `paths`. Raises RecordError."""
    question = row.text(*layout.question_fields)
    fields = layout.sql_fields
    gold_sql = row.text(*fields) if layout.needs_gold else row.optional_text(row.first_of(fields))
    db_id, path = layout.locate(row)
    if paths.setdefault(db_id, path) != path:
        message = f"'{db_id}' already stands for {paths[db_id]}, here it is {path}; give each its own db_id"
        raise row.error("malformed", "db_id", message)
    if layout.ids_by_content:
        row.optional_text("example_id")  # complains if it is no text
    return Example(
        example_id=place_id(row),
        db_id=db_id,
        question=question,
        gold_sql=gold_sql,
        evidence=row.optional_text("evidence") if layout.with_evidence else "",
        difficulty=row.optional_text("difficulty") if layout.evaluator == "bird" else "",
    )


def _missing(
    examples: Sequence[Example], paths: dict[str, Place], records: dict[str, Record]
) -> dict[str, Problem]:
    files = {example.db_id: file_of(paths[example.db_id]) for example in examples}
    absent = {db_id for db_id, file in files.items() if file is not None and not is_there(file)}
    missing = {}
    for example in examples:
        if example.db_id in absent:
            record = records[example.example_id]
            message = f"database '{example.db_id}' has no file {files[example.db_id]}"
            field_name = "db_id" if "db_id" in record.fields else "database"
            missing[example.example_id] = Problem(
                "missing_database", record.file, record.index, field_name, message
            )
    return missing
