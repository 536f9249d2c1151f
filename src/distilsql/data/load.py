"""Benchmarks by name: which files a spec such as `spider:dev` stands for, read and opened."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from distilsql.data.benchmark import Benchmark, InstructBenchmark, Skipped, SqlBenchmark
from distilsql.data.bird import BIRD_SPECS, bird_layout
from distilsql.data.example import Example
from distilsql.data.instruct import INSTRUCT_SPECS, instruct_file, is_instruct_file, read_instructions
from distilsql.data.layout import Layout, Reading, place_id, read_layout
from distilsql.data.pairs import PAIR_SUFFIXES, pairs_layout
from distilsql.data.records import Problem, RecordError
from distilsql.data.spider import SPIDER_SPECS, spider_layout
from distilsql.data.text import suffix_of
from distilsql.databases.database import Database
from distilsql.databases.schema import describe, introspect
from distilsql.databases.url import DatabaseUrl, Place, place_of
from distilsql.errors import DataError
from distilsql.in_memory import in_memory_message, is_in_memory

DATA_VARIABLE = "DISTILSQL_DATA"
RECORDS = "pairs"  # the name of a benchmark that was made of records in memory


DEMO_SPECS = (
    "demo:train",
    "demo:noisy",
    "demo:valid",
    "demo:test",
    "demo:test-seen",
    "demo:test-unseen",
    "demo:teacher-train",
    "demo:lab-train",
    "demo:lab-noisy",
    "demo:lab-valid",
    "demo:lab-test",
    "demo:lab-test-seen",
    "demo:lab-test-unseen",
)


Missing = Literal["error", "skip"]


def benchmark_names() -> tuple[str, ...]:
    """Every spec that names a benchmark; a path to a file of own examples (`PAIR_SUFFIXES`) is a spec too."""
    return (*DEMO_SPECS, *SPIDER_SPECS, *BIRD_SPECS, *INSTRUCT_SPECS)


def is_own(spec: str) -> bool:
    """Whether `spec` names a user's own examples, not a published benchmark."""
    return spec not in benchmark_names()


def load_benchmark(
    spec: str | Path | Sequence[Example | Mapping[str, Any]],
    *,
    root: Path | str | None = None,
    database: Place | str | None = None,
    missing_databases: Missing = "error",
    needs_gold: bool = True,
) -> Benchmark:
    """The benchmark that `spec` names: one of `benchmark_names()`, or a path to own pairs (see `data.pairs`) or own
    instructions (see `data.instruct`); or such records themselves, a mapping each, that are in memory.

    `root` is the data folder, holding `spider/`, `bird/`, …; without it the environment variable DISTILSQL_DATA
    says where it is. `database` is the path or URL of the database that own pairs are about. Only the databases that
    some example uses are opened. Raises DataError naming file, record and field of the first fault; examples whose
    database file is missing are such a fault unless `missing_databases` is "skip", which names them in `skipped`.
    Without `needs_gold`, own pairs may be questions alone.
    """
    root = None if root is None else Path(root)
    database = None if database is None else place_of(database)
    if not isinstance(spec, str | Path):
        return _load_records(spec, database, missing_databases, needs_gold)
    spec = str(spec)
    if is_in_memory(spec):
        raise DataError(in_memory_message(spec, "data", "train_set=examples"))
    file = find_instructions(spec, root)
    if file is not None:
        return _load_instructions(spec, file)
    return load_sql_benchmark(
        spec, root=root, database=database, missing_databases=missing_databases, needs_gold=needs_gold
    )


def load_sql_benchmark(
    spec: str,
    *,
    root: Path | None = None,
    database: Place | None = None,
    missing_databases: Missing = "error",
    needs_gold: bool = True,
) -> SqlBenchmark:
    """As `load_benchmark`, for what only text-to-SQL has. Raises DataError if `spec` holds instructions."""
    if find_instructions(spec, root) is not None:
        raise DataError(
            f"{spec} is an instruction-following benchmark, but this needs questions about databases; give a benchmark "
            "such as spider:dev, or a file of own question/SQL pairs."
        )
    if spec.startswith("demo:"):
        # Imported here: the demo generates its databases, and needs what this module defines.
        from distilsql.data.demo import load_demo

        return load_demo(spec.removeprefix("demo:"), root)
    layout = replace(find_layout(spec, root=root, database=database), needs_gold=needs_gold)
    reading = read_layout(layout)
    _refuse(reading.problems)
    if missing_databases == "error":
        _refuse(
            tuple(reading.missing.values()), cure='or leave these examples out with missing_databases="skip"'
        )
    examples = tuple(example for example in reading.examples if example.example_id not in reading.missing)
    if not examples:
        raise DataError(f"{spec} has no example to use ({len(reading.missing)} lack their database file).")
    return SqlBenchmark(
        name=spec,
        examples=examples,
        databases=_open_databases(layout, reading, examples),
        evaluator=layout.evaluator,
        skipped=tuple(
            Skipped(example.example_id, position, str(reading.missing[example.example_id]))
            for position, example in enumerate(reading.examples)
            if example.example_id in reading.missing
        ),
        place_ids={
            place_id(record): example_id
            for example_id, record in reading.records.items()
            if layout.ids_by_content and place_id(record) != example_id
        },
    )


def find_instructions(spec: str, root: Path | None = None) -> Path | None:
    """The file of an instruction-following benchmark; None if `spec` is none. Raises DataError if there is no data
    folder."""
    if spec in INSTRUCT_SPECS:
        return instruct_file(spec, data_folder(spec, root))
    return Path(spec) if is_instruct_file(Path(spec)) else None


def _load_instructions(spec: str, file: Path) -> InstructBenchmark:
    examples, problems = read_instructions(file)
    _refuse(problems)
    if not examples:
        raise DataError(
            f"{file} contains no instructions; each line must be an object with instruction and output."
        )
    return InstructBenchmark(spec, examples)


def _load_records(
    records: Sequence[Example | Mapping[str, Any]],
    database: Place | None,
    missing_databases: Missing,
    needs_gold: bool,
) -> Benchmark:
    """Records that no file holds, read as those of a file `pairs.jsonl` are: with the same ids and the same faults."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.jsonl"
        lines = [json.dumps(_as_record(record), ensure_ascii=False) for record in records]
        file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        benchmark = load_benchmark(
            file, database=database, missing_databases=missing_databases, needs_gold=needs_gold
        )
    return replace(benchmark, name=RECORDS)


def _as_record(record: Example | Mapping[str, Any]) -> Any:
    if isinstance(record, Example):
        fields = {"example_id": record.example_id, "db_id": record.db_id, "question": record.question}
        return fields | {"sql": record.gold_sql, "evidence": record.evidence}
    if isinstance(record, Mapping) and isinstance(record.get("database"), str | Path | DatabaseUrl):
        place = place_of(record["database"])
        if isinstance(place, DatabaseUrl) and place.holds_password:
            raise DataError(f"Records are kept, and {place} has a password; put ${{NAME}} in its place.")
        return {**record, "database": str(place if isinstance(place, DatabaseUrl) else place.absolute())}
    return dict(record) if isinstance(record, Mapping) else record


def find_layout(spec: str, *, root: Path | None = None, database: Place | None = None) -> Layout:
    """Where the text-to-SQL benchmark `spec` lies. Raises DataError if there is no such benchmark or no data folder."""
    if spec in DEMO_SPECS:
        # Imported here, as above.
        from distilsql.data.demo import demo_layout

        return demo_layout(spec.removeprefix("demo:"), root)
    if spec in SPIDER_SPECS:
        return spider_layout(spec, data_folder(spec, root))
    if spec in BIRD_SPECS:
        return bird_layout(spec, data_folder(spec, root))
    if suffix_of(Path(spec)) in PAIR_SUFFIXES:
        return pairs_layout(Path(spec), database)
    if os.path.isfile(spec):
        raise DataError(
            f"{spec} has no suffix that gives its format; own pairs end in {', '.join(PAIR_SUFFIXES)}. Rename it."
        )
    raise DataError(
        f"There is no benchmark '{spec}'. Known: {', '.join(benchmark_names())}; "
        "or give the path of a .jsonl, .json, .csv or .tsv file with your own question and sql fields, or of a .jsonl "
        "file with instruction and output fields."
    )


def data_folder(spec: str, root: Path | None) -> Path:
    """`root`, or the folder that DISTILSQL_DATA names. Raises DataError if neither is given or it does not exist."""
    named = root or (Path(os.environ[DATA_VARIABLE]) if os.environ.get(DATA_VARIABLE) else None)
    if named is None:
        raise DataError(
            f"{spec} is read from a data folder, but none is given; pass one, or set {DATA_VARIABLE} "
            "to the folder that holds spider/, spider-dk/, bird/ and so on."
        )
    if not named.is_dir():
        raise DataError(f"The data folder {named} does not exist; check the path or {DATA_VARIABLE}.")
    return named


def _refuse(problems: tuple[Problem, ...], cure: str = "") -> None:
    if not problems:
        return
    others = f" ({len(problems) - 1} more of this kind)" if len(problems) > 1 else ""
    advice = ", ".join(filter(None, ["`distilsql data check` lists every fault", cure]))
    raise DataError(f"{problems[0]}{others}; {advice}.")


def _open_databases(layout: Layout, reading: Reading, examples: tuple[Example, ...]) -> dict[str, Database]:
    databases: dict[str, Database] = {}
    faults: list[str] = []
    for db_id in dict.fromkeys(example.db_id for example in examples):
        path = reading.paths[db_id]
        try:
            schema = describe(introspect(path), layout.comments(db_id, path))
            databases[db_id] = Database(db_id, path, schema)
        except RecordError:  # of tables.json, not of this database
            raise
        except DataError as error:
            faults.append(str(error))
        except OSError as error:
            faults.append(f"The database {path} cannot be read ({error.strerror}); check its permissions.")
    if faults:
        raise DataError("\n".join(faults))
    return databases
