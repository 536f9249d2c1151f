"""Benchmark: named examples together with the databases they are about and the evaluator that judges them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from distilsql.data.example import Example
from distilsql.databases.database import Database

Evaluator = Literal["spider", "bird"]


@dataclass(frozen=True)
class Benchmark:
    """`name` is the spec it was loaded by, such as `spider:dev`; `evaluator` says whose semantics judge it."""

    name: str
    examples: tuple[Example, ...]
    databases: Mapping[str, Database]
    evaluator: Evaluator
