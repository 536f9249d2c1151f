"""Read a prediction file in any supported format: one prediction per example, in the benchmark's order."""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from distilsql.data.benchmark import Benchmark, InstructBenchmark, SqlBenchmark, Task
from distilsql.data.records import TABLE_SUFFIXES
from distilsql.data.text import NotText, decode, has_text, read_table, suffix_of
from distilsql.errors import DataError

BIRD_SEPARATOR = "\t----- bird -----\t"
SQL_COLUMNS = ("sql", "predicted_sql", "prediction", "query")
ID_COLUMN = "example_id"
# Where a line of our own prediction files has its answer.
ANSWER_FIELDS: dict[Task, str] = {"sql": "sql", "instruct": "response"}
# Some word of any SQL that can be run. A file of lines without a single one holds something else.
_SQL_WORD = re.compile(
    r"\b(select|with|values|explain|pragma|insert|update|delete|replace|create|drop|alter|begin|commit)\b",
    re.IGNORECASE,
)

B = TypeVar("B", SqlBenchmark, InstructBenchmark)


class _Found(NamedTuple):
    """A prediction with an id, and where it stands."""

    example_id: str
    answer: str
    place: str


def read_predictions(
    path: Path | str,
    benchmark: SqlBenchmark,
    *,
    column: str | None = None,
    whole: SqlBenchmark | None = None,
    may_lack: Collection[str] = (),
    may_be_empty: bool = False,
) -> list[str]:
    """The predictions in `path`, in the order of `benchmark.examples`.

    The file may also hold predictions for all of `whole`, the benchmark that `benchmark` was drawn from, and lack those
    for the ids in `may_lack`, which come out as ''.

    The suffix decides, in any case: `.jsonl` our own (`{"example_id": …, "sql": …}`), `.json` BIRD's (an object from
    position in the benchmark's file to SQL), `.csv` a table with the SQL in `column`, matched by an `example_id` column
    or else by row, and `.tsv` too if its first line is a header; anything else one line per example (Spider).

    Raises DataError that says where, if the number of predictions is wrong, a line is blank where lines are counted, an
    id is unknown, missing or there twice, or a line says that it answers another question; and DataError that says
    what was found, if the file is of another format than it is taken for, or all predictions are empty (unless they
    `may_be_empty`).
    """

    def read(asked: SqlBenchmark) -> list[str]:
        return _read_sql(Path(path), asked, column, may_lack)

    answers = _read_draw(read, benchmark, whole)
    if not may_be_empty and not any(answer.strip() for answer in answers):
        raise DataError(
            f"All {len(answers)} predictions in {path} are empty, so there is nothing to judge; check that the file "
            "has the SQL in the expected place."
        )
    return answers


def _read_sql(
    path: Path, benchmark: SqlBenchmark, column: str | None, may_lack: Collection[str]
) -> list[str]:
    text, suffix = _read_text(path), suffix_of(path)
    if suffix == ".jsonl":
        return _by_id(list(_read_jsonl(text, path, benchmark)), benchmark, path, may_lack)
    if suffix == ".json":
        return _read_bird(text, benchmark, path, may_lack)
    if suffix == ".csv" or (suffix in TABLE_SUFFIXES and _has_header(text, column)):
        return _read_csv(text, benchmark, path, column, may_lack)
    return _read_lines(text, benchmark, path, may_lack)


def _has_header(text: str, column: str | None) -> bool:
    cells = {cell.strip().strip('"').lower() for cell in text.partition("\n")[0].split("\t")}
    return bool(cells & {ID_COLUMN, *SQL_COLUMNS, *([column.lower()] if column else [])})


def _read_draw(read: Callable[[B], list[str]], benchmark: B, whole: B | None) -> list[str]:
    """What `read` finds for `benchmark`: picked from the answers to all of `whole` if the file has them."""
    if whole is None or whole.examples == benchmark.examples:
        return read(benchmark)
    try:
        answers = read(whole)
    except DataError as of_whole:
        try:
            return read(_without_skipped(benchmark))
        except DataError as of_draw:
            raise DataError(
                f"{of_draw} Nor does it hold those of all of {whole.name}: {of_whole}"
            ) from of_draw
    by_id = {example.example_id: answer for example, answer in zip(whole.examples, answers, strict=True)}
    return [by_id[example.example_id] for example in benchmark.examples]


def _without_skipped(benchmark: B) -> B:
    """A draw knows its own examples alone: those that are left out are not of it."""
    return replace(benchmark, skipped=()) if isinstance(benchmark, SqlBenchmark) else benchmark


def read_responses(
    path: Path | str, benchmark: InstructBenchmark, *, whole: InstructBenchmark | None = None
) -> list[str]:
    """The responses in a `.jsonl` file, in the order of `benchmark.examples`; `whole` as in `read_predictions`.

    Lines are our own (`{"example_id": …, "response": …}`), in any order, or MiniLLM's (`{"text": …}`), one for each
    example in the benchmark's order. Raises DataError as `read_predictions` does; a response may be empty.
    """
    return _read_draw(lambda asked: _read_instruct(Path(path), asked), benchmark, whole)


def _read_instruct(path: Path, benchmark: InstructBenchmark) -> list[str]:
    if suffix_of(path) != ".jsonl":
        raise DataError(
            f"{path} does not end in .jsonl; responses hold line breaks, so they come as JSON lines."
        )
    text = _read_text(path)
    if f'"{ID_COLUMN}"' in text.split("\n", 1)[0]:
        return _by_id(list(_read_jsonl(text, path, benchmark)), benchmark, path)
    responses = [_text_of(record, place) for record, place in _json_lines(text, path)]
    return _by_place(responses, "lines", benchmark, path)


def _text_of(record: Any, place: str) -> str:
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise DataError(
            f'{place} is not a response; write {{"example_id": "…", "response": "…"}}, or {{"text": "…"}} in every '
            "line."
        )
    return str(record["text"])


def _read_text(path: Path) -> str:
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    except NotText as error:
        raise DataError(f"{path} {error}.") from error


def _read_lines(text: str, benchmark: SqlBenchmark, path: Path, may_lack: Collection[str]) -> list[str]:
    if found := _no_lines_of_sql(text):
        raise DataError(
            f"{path} was read as one SQL query per line, because of its suffix, but {found}. Give it the suffix of its "
            "format: .jsonl, .json, .csv, or .sql with a query in every line."
        )
    lines = text.replace("\r\n", "\n").split("\n")
    if lines[-1] == "":  # the end of the last line, not one more
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise DataError(
                f"{path}, line {number} is blank; every example needs a line (write SELECT where there is no SQL)."
            )
    answers = _by_place(lines, "lines", benchmark, path, may_lack)
    return _without_database_names(answers, benchmark, path)


def _no_lines_of_sql(text: str) -> str:
    """What a file holds if it is not lines of SQL, as a clause for a message; '' if it may be SQL."""
    filled = [line.strip() for line in text.split("\n") if line.strip()]
    if not filled:
        return ""
    first = filled[0]
    shown = first if len(first) <= 60 else first[:60] + "…"
    if first[0] in "{[":
        return f"it holds JSON: its first line is {shown}"
    if first[0] == "<":
        return f"it holds HTML or XML: its first line is {shown}"
    if any(line.startswith("```") for line in filled):
        return "it holds Markdown: some line is ```"
    header = [cell.strip().strip('"').lower() for cell in re.split("[,;\t]", first)]
    if ID_COLUMN in header or (set(header) & set(SQL_COLUMNS) and not _SQL_WORD.search(first)):
        return f"its first line is the header of a table: {shown}"
    if not any(map(_SQL_WORD.search, filled)):
        return f"no line of it is SQL: its first line is {shown}"
    return ""


def _without_database_names(answers: list[str], benchmark: SqlBenchmark, path: Path) -> list[str]:
    """Spider's files may have `SQL<TAB>db_id` in every line. Own pairs' SQL may hold tabs, so it is cut only where
    every line ends so. Raises DataError if a line names the database of another example."""
    parts = [answer.rstrip().rpartition("\t") for answer in answers]
    if not all(tab and name in benchmark.databases for _, tab, name in parts):
        return answers
    for number, ((_, _, name), example) in enumerate(zip(parts, benchmark.examples, strict=True), start=1):
        if name != example.db_id:
            raise DataError(
                f"{path}, prediction {number} is about {name}, {example.example_id} of {benchmark.name} about "
                f"{example.db_id}; is this its file, in its order?"
            )
    # Spider's reading cuts by itself, and is part of the verdict.
    return [sql for sql, _, _ in parts] if benchmark.evaluator == "plain" else answers


def _by_place(
    answers: list[str], what: str, benchmark: Benchmark, path: Path, may_lack: Collection[str] = ()
) -> list[str]:
    """Predictions without ids, one for each example; there may be some for examples that are left out, too."""
    count, wanted = len(answers), len(benchmark.examples)
    left_out = {skipped.position for skipped in benchmark.skipped}
    if count == wanted:
        return answers
    if count == wanted + len(left_out):
        return [answer for place, answer in enumerate(answers) if place not in left_out]
    kept = [example for example in benchmark.examples if example.example_id not in may_lack]
    if count == len(kept):
        there = {example.example_id: answer for example, answer in zip(kept, answers, strict=True)}
        return [there.get(example.example_id, "") for example in benchmark.examples]
    others = f" (and {len(left_out)} that lack their database)" if left_out else ""
    at = (
        f"; the first example without one is {benchmark.examples[count].example_id}" if count < wanted else ""
    )
    raise DataError(f"{path} has {count} {what}, {benchmark.name} has {wanted} examples{others}{at}.")


def _read_jsonl(text: str, path: Path, benchmark: Benchmark) -> Iterator[_Found]:
    field = ANSWER_FIELDS[benchmark.task]
    questions = {example.example_id: example.question for example in benchmark.examples}
    for record, place in _json_lines(text, path):
        if not isinstance(record, dict) or not all(
            isinstance(record.get(k), str) for k in (ID_COLUMN, field)
        ):
            found = f"the fields {', '.join(record)}" if isinstance(record, dict) else type(record).__name__
            raise DataError(
                f'{place} is not a prediction; write {{"example_id": "…", "{field}": "…"}}, both texts. It holds '
                f"{found}."
            )
        example_id = _id_of(record[ID_COLUMN], benchmark)
        asked = questions.get(example_id)
        if asked is not None and record.get("question", asked) != asked:
            raise DataError(
                f"{place} answers {record['question']!r}, but {record[ID_COLUMN]} of {benchmark.name} asks {asked!r}: "
                "the predictions are for another file, or records were deleted since. Predict again."
            )
        yield _Found(example_id, record[field], place)


def _id_of(name: str, benchmark: Benchmark) -> str:
    """The id of the example that a file calls `name`; an own pair may be named by its position."""
    return benchmark.place_ids.get(name, name) if isinstance(benchmark, SqlBenchmark) else name


def _is_gone(example_id: str, benchmark: Benchmark) -> bool:
    """Whether an unknown id is of an own pair that was deleted since: ids say what is asked, so the others' still hold.
    A place says nothing once a record before it is deleted."""
    is_own = isinstance(benchmark, SqlBenchmark) and benchmark.evaluator == "plain"
    return is_own and not re.fullmatch(r".*/\d{1,7}", example_id)


def _json_lines(text: str, path: Path) -> Iterator[tuple[Any, str]]:
    """The JSON value of every line, and its place for messages."""
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        place = f"{path}, line {number}"
        if not line.strip():
            raise DataError(f"{place} is blank; remove it.")
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{place} is not JSON ({error}); each line is one object.") from error
        yield record, place


def _by_id(
    found: Sequence[_Found], benchmark: Benchmark, path: Path, may_lack: Collection[str] = ()
) -> list[str]:
    """Predictions with ids, in the benchmark's order whatever the file's. An empty prediction is allowed here."""
    known = {example.example_id for example in benchmark.examples}
    left_out = {skipped.example_id for skipped in benchmark.skipped}
    answers: dict[str, str] = {}
    for example_id, answer, place in found:
        if example_id in left_out or (example_id not in known and _is_gone(example_id, benchmark)):
            continue
        if example_id not in known:
            places = isinstance(benchmark, SqlBenchmark) and benchmark.place_ids
            cure = (
                " If records were deleted since, put them back and use --leave-out, or predict again."
                * bool(places)
            )
            raise DataError(
                f"{place}: {benchmark.name} has no example {example_id!r}; is this its file?{cure}"
            )
        if example_id in answers:
            raise DataError(f"{place}: a second prediction for {example_id!r}; keep one.")
        answers[example_id] = answer
    for example in benchmark.examples:
        if example.example_id not in answers and example.example_id not in may_lack:
            raise DataError(
                f"{path} has no prediction for {example.example_id} ({len(answers)} of {len(known)} are there)."
            )
    return [answers.get(example.example_id, "") for example in benchmark.examples]


def _read_bird(text: str, benchmark: SqlBenchmark, path: Path, may_lack: Collection[str]) -> list[str]:
    """BIRD's keys are positions in the benchmark's file, which our example ids end with."""
    try:
        records: Any = json.loads(text, object_pairs_hook=partial(_without_repeats, path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON ({error}).") from error
    if not isinstance(records, dict):
        raise DataError(
            f'{path} is not a BIRD prediction file, an object {{"0": "SQL", …}}: it holds {_in_words(records)}.'
        )
    example_ids = [example.example_id for example in benchmark.examples]
    example_ids += [skipped.example_id for skipped in benchmark.skipped]
    places = {example_id: example_id for example_id in example_ids} | dict(benchmark.place_ids)
    ids = {place.rpartition("/")[2]: example_id for place, example_id in places.items()}
    predicted: dict[str, Any] = records
    found = []
    for key, value in predicted.items():
        place = f"{path}, key {key!r}"
        if not isinstance(value, str):
            raise DataError(f"{place}: the value is not text but {type(value).__name__}.")
        sql, _, db_id = value.partition(BIRD_SEPARATOR)
        example_id = ids.get(key, key)
        _check_database(db_id, example_id, benchmark, place)
        found.append(_Found(example_id, sql, place))
    return _by_id(found, benchmark, path, may_lack)


def _in_words(value: Any) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else type(value).__name__


def _without_repeats(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise DataError(f"{path}, key {twice!r} is there twice; keep one.")
    return found


def _check_database(db_id: str, example_id: str, benchmark: SqlBenchmark, place: str) -> None:
    expected = {example.example_id: example.db_id for example in benchmark.examples}
    if db_id and db_id != expected.get(example_id, db_id):
        raise DataError(
            f"{place} is about {db_id}, the example about {expected[example_id]}; was the file made on another "
            "revision of the benchmark?"
        )


def _read_csv(
    text: str, benchmark: SqlBenchmark, path: Path, column: str | None, may_lack: Collection[str]
) -> list[str]:
    try:
        table = read_table(text, (ID_COLUMN, *SQL_COLUMNS, *([column] if column else [])))
    except DataError as error:
        raise DataError(f"{path} {error}.") from error
    name = table.column([column] if column else SQL_COLUMNS)
    if name is None:
        raise DataError(
            f"{path} has the columns {', '.join(table.header)}; say which one holds the SQL with --column."
        )
    id_column = table.column([ID_COLUMN])
    rows = list(table.rows)
    while rows and len(table.header) > 1 and not any(map(has_text, rows[-1][1].values())):
        rows.pop()  # spreadsheets end with them
    found = []
    for line, row in rows:
        place = f"{path}, line {line}"
        if has_text(row.get(None)):  # the sign of a comma in unquoted SQL
            raise DataError(f"{place} has more cells than the header; quote SQL that holds a comma.")
        if not has_text(row[name]):
            raise DataError(f"{place}: the column {name} is blank.")
        example_id = _id_of(row[id_column] or "", benchmark) if id_column else ""
        found.append(_Found(example_id, row[name], place))
    if id_column is not None:
        return _by_id(found, benchmark, path, may_lack)
    return _by_place([sql for _, sql, _ in found], "rows", benchmark, path, may_lack)


def count_stripped(path: Path) -> dict[str, int]:
    """How many answers of a prediction file of ours were stripped of thoughts, fences and prose (see
    `databases.written_sql`); of files that say nothing of it, nothing."""
    if path.suffix != ".jsonl":
        return {}
    records = [record for record, _ in _json_lines(_read_text(path), path) if isinstance(record, dict)]
    return dict(Counter(str(what) for record in records for what in record.get("stripped", ())))
