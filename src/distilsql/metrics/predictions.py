"""Read a file of predictions in anyone's format, one prediction per example, in the benchmark's order."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from distilsql.data.benchmark import Benchmark, InstructBenchmark, SqlBenchmark, Task
from distilsql.data.records import csv_fault
from distilsql.errors import DataError

BIRD_SEPARATOR = "\t----- bird -----\t"
SQL_COLUMNS = ("sql", "predicted_sql", "prediction", "query")
ID_COLUMN = "example_id"
# Where a line of our own prediction files has its answer.
ANSWER_FIELDS: dict[Task, str] = {"sql": "sql", "instruct": "response"}


B = TypeVar("B", SqlBenchmark, InstructBenchmark)


class _Found(NamedTuple):
    """A prediction with an id, and where it stands."""

    example_id: str
    answer: str
    place: str


def read_predictions(
    path: Path | str, benchmark: SqlBenchmark, *, column: str | None = None, whole: SqlBenchmark | None = None
) -> list[str]:
    """The predictions in `path`, in the order of `benchmark.examples`.

    The file may also hold predictions for all of `whole`, the benchmark that `benchmark` was drawn from.

    The suffix decides: `.jsonl` our own (`{"example_id": …, "sql": …}`), `.json` BIRD's (an object from position in the
    benchmark's file to SQL), `.csv` a table with the SQL in `column`, matched by an `example_id` column or
    else by row; anything else one line per example (Spider). Raises DataError that says where, if the
    number of predictions is wrong, a line is blank where lines are counted, an id is unknown, missing or there twice,
    or a line says that it answers another question.
    """
    return _read_draw(lambda asked: _read_sql(Path(path), asked, column), benchmark, whole)


def _read_sql(path: Path, benchmark: SqlBenchmark, column: str | None) -> list[str]:
    text = _read_text(path)
    if path.suffix == ".jsonl":
        return _by_id(list(_read_jsonl(text, path, benchmark)), benchmark, path)
    if path.suffix == ".json":
        return _read_bird(text, benchmark, path)
    if path.suffix == ".csv":
        return _read_csv(text, benchmark, path, column)
    return _read_lines(text, benchmark, path)


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
    if path.suffix != ".jsonl":
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
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error


def _read_lines(text: str, benchmark: SqlBenchmark, path: Path) -> list[str]:
    lines = text.replace("\r\n", "\n").split("\n")
    if lines[-1] == "":  # the end of the last line, not one more
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise DataError(
                f"{path}, line {number} is blank; every example needs a line (write SELECT where there is no SQL)."
            )
    return _by_place(lines, "lines", benchmark, path)


def _by_place(answers: list[str], what: str, benchmark: Benchmark, path: Path) -> list[str]:
    """Predictions without ids, one for each example; there may be some for examples that are left out, too."""
    count, wanted = len(answers), len(benchmark.examples)
    left_out = {skipped.position for skipped in benchmark.skipped}
    if count == wanted:
        return answers
    if count == wanted + len(left_out):
        return [answer for place, answer in enumerate(answers) if place not in left_out]
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
            raise DataError(f'{place} is not a prediction; write {{"example_id": "…", "{field}": "…"}}.')
        asked = questions.get(record[ID_COLUMN])
        if asked is not None and record.get("question", asked) != asked:
            raise DataError(
                f"{place} answers {record['question']!r}, but {record[ID_COLUMN]} of {benchmark.name} asks {asked!r}: "
                "the predictions are for another file. Predict again."
            )
        yield _Found(record[ID_COLUMN], record[field], place)


def _json_lines(text: str, path: Path) -> Iterator[tuple[Any, str]]:
    """The JSON value of every line, and where it stands."""
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        place = f"{path}, line {number}"
        if not line.strip():
            raise DataError(f"{place} is blank; remove it.")
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{place} is not JSON ({error}); each line is one object.") from error
        yield record, place


def _by_id(found: Sequence[_Found], benchmark: Benchmark, path: Path) -> list[str]:
    """Predictions with ids, in the benchmark's order whatever the file's. An empty prediction is allowed here."""
    known = {example.example_id for example in benchmark.examples}
    left_out = {skipped.example_id for skipped in benchmark.skipped}
    answers: dict[str, str] = {}
    for example_id, answer, place in found:
        if example_id in left_out:
            continue
        if example_id not in known:
            raise DataError(f"{place}: {benchmark.name} has no example {example_id!r}; is this its file?")
        if example_id in answers:
            raise DataError(f"{place}: a second prediction for {example_id!r}; keep one.")
        answers[example_id] = answer
    for example in benchmark.examples:
        if example.example_id not in answers:
            raise DataError(
                f"{path} has no prediction for {example.example_id} ({len(answers)} of {len(known)} are there)."
            )
    return [answers[example.example_id] for example in benchmark.examples]


def _read_bird(text: str, benchmark: SqlBenchmark, path: Path) -> list[str]:
    """BIRD's keys are positions in the benchmark's file, which our example ids end with."""
    try:
        records: Any = json.loads(text, object_pairs_hook=partial(_without_repeats, path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON ({error}).") from error
    if not isinstance(records, dict):
        raise DataError(f'{path} is not a BIRD prediction file; it holds an object {{"0": "SQL", …}}.')
    example_ids = [example.example_id for example in benchmark.examples]
    example_ids += [skipped.example_id for skipped in benchmark.skipped]
    ids = {example_id.rpartition("/")[2]: example_id for example_id in example_ids}
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
    return _by_id(found, benchmark, path)


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


def _read_csv(text: str, benchmark: SqlBenchmark, path: Path, column: str | None) -> list[str]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path} {csv_fault(reader, error)}") from error
    header = list(reader.fieldnames or ())
    name = column or next((name for name in SQL_COLUMNS if name in header), None)
    if name not in header:
        raise DataError(
            f"{path} has the columns {', '.join(header)}; say which one holds the SQL with column=…."
        )
    found = []
    for line, row in rows:
        place = f"{path}, line {line}"
        if None in row:  # the sign of a comma in unquoted SQL
            raise DataError(f"{place} has more cells than the header; quote SQL that holds a comma.")
        if not (row[name] or "").strip():
            raise DataError(f"{place}: the column {name} is blank.")
        found.append(_Found(row.get(ID_COLUMN) or "", row[name], place))
    if ID_COLUMN in header:
        return _by_id(found, benchmark, path)
    return _by_place([sql for _, sql, _ in found], "rows", benchmark, path)


def count_stripped(path: Path) -> dict[str, int]:
    """How many answers of a prediction file of ours were stripped of thoughts, fences and prose (see
    `databases.written_sql`); of files that say nothing of it, nothing."""
    if path.suffix != ".jsonl":
        return {}
    records = [record for record, _ in _json_lines(_read_text(path), path) if isinstance(record, dict)]
    return dict(Counter(str(what) for record in records for what in record.get("stripped", ())))
