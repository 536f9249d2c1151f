"""Example: a question, its gold answer, and the database it is about."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """One question with its gold SQL.

    `example_id` is unique within a benchmark and stable across loads. `evidence` is BIRD's external knowledge
    (empty elsewhere). `db_id` names a Database of the same Benchmark.
    """

    example_id: str
    db_id: str
    question: str
    gold_sql: str
    evidence: str = ""
    difficulty: str = ""
