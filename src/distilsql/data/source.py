"""Source: where the parts of a benchmark lie, and the one reader that turns them into examples and problems."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from distilsql.data.example import Example
from distilsql.data.records import Problem, Record, RecordError, read_records
from distilsql.databases.execute import Decoding
from distilsql.databases.schema import Comments

# Whose rules judge: an official evaluator's, or "plain" for own pairs, whose SQL is run as it stands.
Evaluator = Literal["spider", "bird", "plain"]
# Text that is not UTF-8: Spider's evaluator reads past it, in BIRD's the query fails.
DECODING: dict[Evaluator, Decoding] = {"spider": "ignore", "bird": "strict", "plain": "ignore"}


def _everything(examples: Sequence[Example]) -> Sequence[Example]:
    return examples


def _no_comments(db_id: str, path: Path) -> Comments:
    return Comments({}, {})


@dataclass(frozen=True)
class Source:
    """A benchmark not yet read.

    `locate` gives a record's db_id and database file (which need not exist) or raises RecordError; `comments`
    gives what is known of a database beyond its file; `part` picks the examples that belong, from all of them. Without
    `needs_gold` a record may lack its SQL: the example's is then ''.
    """

    name: str
    files: tuple[Path, ...]
    locate: Callable[[Record], tuple[str, Path]]
    question_fields: tuple[str, ...] = ("question",)
    sql_fields: tuple[str, ...] = ("query",)
    with_evidence: bool = False
    evaluator: Evaluator = "spider"
    comments: Callable[[str, Path], Comments] = _no_comments
    part: Callable[[Sequence[Example]], Sequence[Example]] = _everything
    needs_gold: bool = True


@dataclass(frozen=True)
class Reading:
    """What reading a Source gave. `examples` leaves out faulty records, and keeps those without a database file.

    `paths` maps db_id to the database file, `records` example_id to the record it came from; `missing` names the
    examples whose database file does not exist.
    """

    examples: tuple[Example, ...]
    paths: dict[str, Path]
    records: dict[str, Record]
    missing: dict[str, Problem] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def read_source(source: Source) -> Reading:
    """Read every record of a source; faults become problems, so that all of them can be reported at once."""
    paths: dict[str, Path] = {}
    problems: list[Problem] = []
    read = [pair for file in source.files for pair in _read_file(source, file, paths, problems)]
    examples = tuple(source.part([example for example, _ in read]))
    records = {example.example_id: record for example, record in read}
    return Reading(examples, paths, records, _missing(examples, paths, records), tuple(problems))


def _read_file(
    source: Source, file: Path, paths: dict[str, Path], problems: list[Problem]
) -> Iterator[tuple[Example, Record]]:
    """The good records of one file; enters databases into `paths` and faults into `problems`."""
    try:
        for row in read_records(file):
            if isinstance(row, RecordError):
                problems.append(row.problem)
                continue
            try:
                yield _read_example(source, row, paths), row
            except RecordError as error:
                if error.problem.file != file:  # a fault of tables.json, which every record would meet again
                    raise
                problems.append(error.problem)
    except RecordError as error:
        problems.append(error.problem)


def _read_example(source: Source, row: Record, paths: dict[str, Path]) -> Example:
    """The Example in `row`; enters its database into `paths`. Raises RecordError."""
    question = row.text(*source.question_fields)
    fields = source.sql_fields
    gold_sql = row.text(*fields) if source.needs_gold else row.optional_text(row.first_of(fields))
    db_id, path = source.locate(row)
    if paths.setdefault(db_id, path) != path:
        message = f"'{db_id}' already stands for {paths[db_id]}, here it is {path}; give each its own db_id"
        raise row.error("malformed", "db_id", message)
    return Example(
        example_id=f"{row.file.stem}/{row.index}",
        db_id=db_id,
        question=question,
        gold_sql=gold_sql,
        evidence=row.optional_text("evidence") if source.with_evidence else "",
        difficulty=row.optional_text("difficulty") if source.evaluator == "bird" else "",
    )


def _missing(
    examples: Sequence[Example], paths: dict[str, Path], records: dict[str, Record]
) -> dict[str, Problem]:
    absent = {db_id for db_id in {example.db_id for example in examples} if not paths[db_id].is_file()}
    missing = {}
    for example in examples:
        if example.db_id in absent:
            record = records[example.example_id]
            message = f"database '{example.db_id}' has no file {paths[example.db_id]}"
            field_name = "db_id" if "db_id" in record.fields else "database"
            missing[example.example_id] = Problem(
                "missing_database", record.file, record.index, field_name, message
            )
    return missing
