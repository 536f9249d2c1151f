"""The in-domain split: one benchmark's questions divided within each database, for the case of one known database."""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from distilsql.data.example import Example
from distilsql.databases.normalise import normalise_sql
from distilsql.databases.url import Engine

IN_DOMAIN_PARTS = ("train", "valid", "test")
IN_DOMAIN_SEED = 0
_HELD_OUT_SHARE = 0.1  # of each database's questions, for valid and for test each


def in_domain_part(examples: Sequence[Example], part: str, seed: int = IN_DOMAIN_SEED) -> tuple[Example, ...]:
    """The examples of one part ("train", "valid" or "test") in their own order; see `in_domain_split`."""
    return in_domain_split(examples, seed)[part]


def in_domain_split(examples: Sequence[Example], seed: int) -> Mapping[str, tuple[Example, ...]]:
    """Divide examples about 80/10/10 within each database so that no SQL is in two parts.

    Spider asks the same query in two wordings, and some queries of several databases: all examples with the same
    `query_key` go to the same part, whatever their database. A database's questions are held out query by query,
    in an order drawn from `seed`, while that brings its part nearer to a tenth; what is not held out is train.
    """
    keys = [query_key(example.gold_sql) for example in examples]
    sizes: dict[str, Counter[str]] = defaultdict(Counter)  # database: query: how many of its examples ask it
    for example, key in zip(examples, keys, strict=True):
        sizes[example.db_id][key] += 1
    part_of: dict[str, str] = {}
    for db_id in sorted(sizes):
        _hold_out(sizes[db_id], part_of, random.Random(f"{seed}/{db_id}"))
    return {
        part: tuple(example for example, key in zip(examples, keys, strict=True) if part_of[key] == part)
        for part in IN_DOMAIN_PARTS
    }


def _hold_out(sizes: Mapping[str, int], part_of: dict[str, str], rng: random.Random) -> None:
    """Assign the queries of one database to parts, but for those that an earlier database has assigned."""
    target = _HELD_OUT_SHARE * sum(sizes.values())
    filled = Counter(dict.fromkeys(IN_DOMAIN_PARTS, 0))
    for key in sizes.keys() & part_of.keys():
        filled[part_of[key]] += sizes[key]
    free = sorted(sizes.keys() - part_of.keys())
    rng.shuffle(free)
    for key in free:
        part = next(
            (part for part in ("test", "valid") if _nearer(filled[part], sizes[key], target)), "train"
        )
        part_of[key] = part
        filled[part] += sizes[key]


def _nearer(filled: int, size: int, target: float) -> bool:
    return abs(filled + size - target) < abs(filled - target)


def query_key(sql: str, engine: Engine = "sqlite") -> str:
    """Two golds with the same key are the same query but for spelling: case, spaces, quotes, alias names."""
    return "".join(normalise_sql(sql, engine).replace('"', "'").lower().split())
