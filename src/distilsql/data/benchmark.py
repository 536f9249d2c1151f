"""Benchmark: named examples and their evaluator, for text-to-SQL and for instruction following.

The two tasks differ in what an example is, so they are two types. What is common to them (a name, examples, drawing
some of them) is all that the training loop knows.
"""

import hashlib
import random
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from distilsql.data.example import Example, Instruction
from distilsql.data.layout import Evaluator
from distilsql.databases.database import Database

Task = Literal["sql", "instruct"]
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


def data_checksum(benchmark: Benchmark) -> dict[str, Any]:
    """Number of examples and a SHA-256 over everything of them that training or scoring reads."""
    digest = hashlib.sha256()
    for example in benchmark.examples:
        for text in example.texts:
            digest.update(text.encode() + b"\0")
    return {
        "examples": len(benchmark.examples),
        "sha256": digest.hexdigest(),
        "skipped": len(benchmark.skipped),
    }


def _draw(examples: tuple[E, ...], n: int, seed: int) -> tuple[E, ...]:
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    return tuple(examples[index] for index in sorted(order[:n]))


def _leave_out(examples: tuple[E, ...], example_ids: Container[str]) -> tuple[E, ...]:
    return tuple(example for example in examples if example.example_id not in example_ids)
