"""Benchmark: named examples together with the databases they are about and the evaluator that judges them."""

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from distilsql.data.bird import BIRD_SPECS, bird_source
from distilsql.data.example import Example
from distilsql.data.pairs import PAIR_SUFFIXES, pairs_source
from distilsql.data.records import Problem
from distilsql.data.source import Evaluator, Reading, Source, read_source
from distilsql.data.spider import SPIDER_SPECS, spider_source
from distilsql.databases.database import Database
from distilsql.databases.schema import describe, introspect
from distilsql.errors import DataError

DATA_VARIABLE = "DISTILSQL_DATA"
DEMO_SPECS = ("demo:train", "demo:valid", "demo:test", "demo:test-seen", "demo:test-unseen")


@dataclass(frozen=True)
class Benchmark:
    """`name` is the spec it was loaded by, such as `spider:dev`; `evaluator` says whose semantics judge it.

    `skipped` has one reason for each example that was left out because its database file is missing.
    """

    name: str
    examples: tuple[Example, ...]
    databases: Mapping[str, Database]
    evaluator: Evaluator
    skipped: tuple[str, ...] = ()

    def take(self, n: int, seed: int) -> "Benchmark":
        """`n` examples drawn by `seed` (all of them if there are fewer), in the benchmark's order.

        A smaller draw by the same seed is part of a larger one.
        """
        order = list(range(len(self.examples)))
        random.Random(seed).shuffle(order)
        examples = tuple(self.examples[index] for index in sorted(order[:n]))
        used = {example.db_id for example in examples}
        databases = {db_id: database for db_id, database in self.databases.items() if db_id in used}
        return replace(self, examples=examples, databases=databases)


def benchmark_names() -> tuple[str, ...]:
    """Every spec that names a benchmark; a path to a `.jsonl` or `.csv` file of own pairs is a spec too."""
    return (*DEMO_SPECS, *SPIDER_SPECS, *BIRD_SPECS)


def load_benchmark(
    spec: str,
    *,
    root: Path | None = None,
    database: Path | None = None,
    missing_databases: Literal["error", "skip"] = "error",
) -> Benchmark:
    """The benchmark that `spec` names: one of `benchmark_names()`, or a path to own pairs (see `data.pairs`).

    `root` is the data folder, holding `spider/`, `bird/`, …; without it the environment variable DISTILSQL_DATA
    says where it is. `database` is the SQLite file that own pairs are about. Only the databases that some example
    uses are opened. Raises DataError naming file, record and field of the first fault; examples whose database
    file is missing are such a fault unless `missing_databases` is "skip", which counts them in `skipped`.
    """
    if spec.startswith("demo:"):
        # Imported here: the demo generates its databases, and needs what this module defines.
        from distilsql.data.demo import load_demo

        return load_demo(spec.removeprefix("demo:"), root)
    source = find_source(spec, root=root, database=database)
    reading = read_source(source)
    _refuse(reading.problems)
    if missing_databases == "error":
        _refuse(
            tuple(reading.missing.values()), cure='or leave these examples out with missing_databases="skip"'
        )
    examples = tuple(example for example in reading.examples if example.example_id not in reading.missing)
    if not examples:
        raise DataError(f"{spec} has no example to use ({len(reading.missing)} lack their database file).")
    return Benchmark(
        name=spec,
        examples=examples,
        databases=_open_databases(source, reading, examples),
        evaluator=source.evaluator,
        skipped=tuple(str(problem) for problem in reading.missing.values()),
    )


def find_source(spec: str, *, root: Path | None = None, database: Path | None = None) -> Source:
    """Where the benchmark `spec` lies. Raises DataError if there is no such benchmark or no data folder."""
    if spec in SPIDER_SPECS:
        return spider_source(spec, data_folder(spec, root))
    if spec in BIRD_SPECS:
        return bird_source(spec, data_folder(spec, root))
    if Path(spec).suffix in PAIR_SUFFIXES:
        return pairs_source(Path(spec), database)
    raise DataError(
        f"There is no benchmark '{spec}'. Known: {', '.join(benchmark_names())}; "
        "or give the path of a .jsonl or .csv file with your own question and sql fields."
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
    databases = {}
    for db_id in dict.fromkeys(example.db_id for example in examples):
        path = reading.paths[db_id]
        schema = describe(introspect(path), source.comments(db_id, path))
        databases[db_id] = Database(db_id, path, schema)
    return databases
