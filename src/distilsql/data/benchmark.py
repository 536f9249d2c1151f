"""Benchmark: named examples and what judges them, for text-to-SQL and for instruction following.

The two tasks differ in what an example is, so they are two types. What is common to them (a name, examples, drawing
some of them) is all that the training loop knows.
"""

import os
import random
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, TypeVar

from distilsql.data.bird import BIRD_SPECS, bird_source
from distilsql.data.example import Example, Instruction
from distilsql.data.instruct import INSTRUCT_SPECS, instruct_file, is_instruct_file, read_instructions
from distilsql.data.pairs import PAIR_SUFFIXES, pairs_source
from distilsql.data.records import Problem, RecordError
from distilsql.data.source import Evaluator, Reading, Source, place_id, read_source
from distilsql.data.spider import SPIDER_SPECS, spider_source
from distilsql.data.text import suffix_of
from distilsql.databases.database import Database
from distilsql.databases.schema import describe, introspect
from distilsql.errors import DataError

DATA_VARIABLE = "DISTILSQL_DATA"
DEMO_SPECS = (
    "demo:train",
    "demo:valid",
    "demo:test",
    "demo:test-seen",
    "demo:test-unseen",
    "demo:teacher-train",
)

Task = Literal["sql", "instruct"]
Missing = Literal["error", "skip"]
E = TypeVar("E", Example, Instruction)


class Skipped(NamedTuple):
    """An example that was left out: `position` counts from 0 among all examples, those that are left out too."""

    example_id: str
    position: int
    reason: str


@dataclass(frozen=True)
class SqlBenchmark:
    """`name` is the spec it was loaded by, such as `spider:dev`; `evaluator` says whose semantics judge it.

    `skipped` are the examples that were left out because their database file is missing. `place_ids` are other names of
    own pairs, whose ids say what they ask: `pairs/0` is the first of its file as it is now.
    """

    name: str
    examples: tuple[Example, ...]
    databases: Mapping[str, Database]
    evaluator: Evaluator
    skipped: tuple[Skipped, ...] = ()
    place_ids: Mapping[str, str] = field(default_factory=dict)
    task: ClassVar[Task] = "sql"

    def take(self, n: int, seed: int) -> "SqlBenchmark":
        """`n` examples drawn by `seed` (all of them if there are fewer), in the benchmark's order.

        A smaller draw by the same seed is part of a larger one.
        """
        return self._with(_draw(self.examples, n, seed))

    def without(self, example_ids: Container[str]) -> "SqlBenchmark":
        """The examples whose ids are not among `example_ids`, which may also hold `place_ids`."""
        by_place = {example_id for place, example_id in self.place_ids.items() if place in example_ids}
        kept = _leave_out(self.examples, example_ids)
        return self._with(_leave_out(kept, by_place))

    def _with(self, examples: tuple[Example, ...]) -> "SqlBenchmark":
        used = {example.db_id for example in examples}
        databases = {db_id: database for db_id, database in self.databases.items() if db_id in used}
        return replace(self, examples=examples, databases=databases)


@dataclass(frozen=True)
class InstructBenchmark:
    """Instructions with reference responses, judged by ROUGE-L. Nothing is ever skipped: it needs no databases."""

    name: str
    examples: tuple[Instruction, ...]
    skipped: ClassVar[tuple[Skipped, ...]] = ()
    task: ClassVar[Task] = "instruct"

    def take(self, n: int, seed: int) -> "InstructBenchmark":
        """As `SqlBenchmark.take`."""
        return replace(self, examples=_draw(self.examples, n, seed))

    def without(self, example_ids: Container[str]) -> "InstructBenchmark":
        """As `SqlBenchmark.without`."""
        return replace(self, examples=_leave_out(self.examples, example_ids))


Benchmark = SqlBenchmark | InstructBenchmark


def _draw(examples: tuple[E, ...], n: int, seed: int) -> tuple[E, ...]:
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    return tuple(examples[index] for index in sorted(order[:n]))


def _leave_out(examples: tuple[E, ...], example_ids: Container[str]) -> tuple[E, ...]:
    return tuple(example for example in examples if example.example_id not in example_ids)


def benchmark_names() -> tuple[str, ...]:
    """Every spec that names a benchmark; a path to a file of own examples (`PAIR_SUFFIXES`) is a spec too."""
    return (*DEMO_SPECS, *SPIDER_SPECS, *BIRD_SPECS, *INSTRUCT_SPECS)


def is_own(spec: str) -> bool:
    """Whether `spec` names a user's own examples, not a published benchmark."""
    return spec not in benchmark_names()


def load_benchmark(
    spec: str,
    *,
    root: Path | None = None,
    database: Path | None = None,
    missing_databases: Missing = "error",
    needs_gold: bool = True,
) -> Benchmark:
    """The benchmark that `spec` names: one of `benchmark_names()`, or a path to own pairs (see `data.pairs`) or own
    instructions (see `data.instruct`).

    `root` is the data folder, holding `spider/`, `bird/`, …; without it the environment variable DISTILSQL_DATA
    says where it is. `database` is the SQLite file that own pairs are about. Only the databases that some example
    uses are opened. Raises DataError naming file, record and field of the first fault; examples whose database
    file is missing are such a fault unless `missing_databases` is "skip", which names them in `skipped`. Without
    `needs_gold`, own pairs may be questions alone.
    """
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
    database: Path | None = None,
    missing_databases: Missing = "error",
    needs_gold: bool = True,
) -> SqlBenchmark:
    """As `load_benchmark`, for what only text-to-SQL has. Raises DataError if `spec` holds instructions."""
    if find_instructions(spec, root) is not None:
        raise DataError(
            f"{spec} is instruction following, and this needs questions about databases; give a benchmark such as "
            "spider:dev, or a file of own question/SQL pairs."
        )
    if spec.startswith("demo:"):
        # Imported here: the demo generates its databases, and needs what this module defines.
        from distilsql.data.demo import load_demo

        return load_demo(spec.removeprefix("demo:"), root)
    source = replace(find_source(spec, root=root, database=database), needs_gold=needs_gold)
    reading = read_source(source)
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
        databases=_open_databases(source, reading, examples),
        evaluator=source.evaluator,
        skipped=tuple(
            Skipped(example.example_id, position, str(reading.missing[example.example_id]))
            for position, example in enumerate(reading.examples)
            if example.example_id in reading.missing
        ),
        place_ids={
            place_id(record): example_id
            for example_id, record in reading.records.items()
            if source.ids_by_content and place_id(record) != example_id
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
            f"{file} has no instruction in it; each line is an object with instruction and output."
        )
    return InstructBenchmark(spec, examples)


def find_source(spec: str, *, root: Path | None = None, database: Path | None = None) -> Source:
    """Where the text-to-SQL benchmark `spec` lies. Raises DataError if there is no such benchmark or no data folder."""
    if spec in DEMO_SPECS:
        # Imported here, as above.
        from distilsql.data.demo import demo_source

        return demo_source(spec.removeprefix("demo:"), root)
    if spec in SPIDER_SPECS:
        return spider_source(spec, data_folder(spec, root))
    if spec in BIRD_SPECS:
        return bird_source(spec, data_folder(spec, root))
    if suffix_of(Path(spec)) in PAIR_SUFFIXES:
        return pairs_source(Path(spec), database)
    if os.path.isfile(spec):
        raise DataError(
            f"{spec} has no suffix that says what it holds; own pairs end in {', '.join(PAIR_SUFFIXES)}. Rename it."
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
            f"{spec} is read from a data folder, and none is given; pass one, or set {DATA_VARIABLE} "
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


def _open_databases(source: Source, reading: Reading, examples: tuple[Example, ...]) -> dict[str, Database]:
    databases: dict[str, Database] = {}
    faults: list[str] = []
    for db_id in dict.fromkeys(example.db_id for example in examples):
        path = reading.paths[db_id]
        try:
            schema = describe(introspect(path), source.comments(db_id, path))
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
