"""Names in prompts are ones that SQLite reads, and CodeS's where published benchmarks are asked."""

import sqlite3
from contextlib import closing

import pytest

from distilsql.prompts.codes import shown_name

# https://www.sqlite.org/lang_keywords.html, and the names that SQLite itself gives to things.
KEYWORDS = """abort action add after all alter always analyze and as asc attach autoincrement before begin between by
    cascade case cast check collate column commit conflict constraint create cross current current_date current_time
    current_timestamp database default deferrable deferred delete desc detach distinct do drop each else end escape
    except exclude exclusive exists explain fail filter first following for foreign from full generated glob group
    groups having if ignore immediate in index indexed initially inner insert instead intersect into is isnull join key
    last left like limit match materialized natural no not nothing notnull null nulls of offset on or order others outer
    over partition plan pragma preceding primary query raise range recursive references regexp reindex release rename
    replace restrict returning right rollback row rows savepoint select set table temp temporary then ties to
    transaction trigger unbounded union unique update using vacuum values view virtual when where window with without
    true false rowid oid""".split()  # noqa: SIM905
QUERIES = (
    "SELECT {0} FROM {0}",
    "SELECT {0}.{0} FROM {0}",
    "SELECT {0} FROM {0} WHERE {0} = 7 GROUP BY {0} HAVING {0} > 1 ORDER BY {0}",
    "SELECT max({0}.{0}) FROM {0} JOIN {0} AS t2 ON t2.{0} = {0}.{0}",
    "SELECT DISTINCT {0} FROM {0} WHERE NOT {0} BETWEEN {0} + 1 AND 9",
)


@pytest.mark.parametrize(
    "name", [*KEYWORDS, "2024", "7up", "a b", "a`b", "a.b", "naïve", "日本", "$x", "x$", ""]
)
def test_every_name_can_be_copied_into_a_query(name: str) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f'CREATE TABLE "{name}" ("{name}" INT)')
        connection.execute(f'INSERT INTO "{name}" VALUES (7)')
        for query in QUERIES:
            assert connection.execute(query.format(shown_name(name, "sqlite"))).fetchall() == [(7,)], query


def test_plain_names_are_bare_and_codess_stay_as_they_were() -> None:
    assert [shown_name(name, "sqlite") for name in ("Singer_ID", "key", "date", "Ärzte")] == [
        "singer_id",
        "key",
        "date",
        "Ärzte",
    ]
    assert [shown_name(name) for name in ("order", "2024", "Net Worth")] == ["order", "2024", "`net worth`"]
