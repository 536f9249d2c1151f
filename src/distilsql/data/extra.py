"""Pairs that are trained on beside a benchmark, such as those that a server's users called right or corrected."""

from dataclasses import replace

from distilsql.data.benchmark import Benchmark, SqlBenchmark
from distilsql.data.example import Example
from distilsql.databases.url import same_database
from distilsql.errors import DataError


def with_extra(train_set: Benchmark, extra: Benchmark) -> SqlBenchmark:
    """`train_set` and the pairs of `extra` behind it. A pair takes the place of every earlier one with the same
    question and evidence about the same database.

    Raises:
        DataError: one of them holds instructions, or they mean different databases by one db_id.
    """
    if not isinstance(train_set, SqlBenchmark) or not isinstance(extra, SqlBenchmark):
        raise DataError(
            "data.extra is for questions about databases; leave it out for instruction following."
        )
    for db_id, database in extra.databases.items():
        known = train_set.databases.get(db_id)
        if known is not None and not same_database(known.path, database.path):
            raise DataError(
                f"data.train and data.extra mean two databases by {db_id}: {known.path} and {database.path}. "
                "Give the pairs of one of them another db_id."
            )
    last = {
        _asked(example): replace(example, example_id=f"extra/{example.example_id}")
        for example in extra.examples
    }
    kept = [example for example in train_set.examples if _asked(example) not in last]
    return replace(
        train_set,
        examples=(*kept, *last.values()),
        databases={**extra.databases, **train_set.databases},
    )


def _asked(example: Example) -> tuple[str, str, str]:
    return example.db_id, " ".join(example.question.split()), example.evidence
