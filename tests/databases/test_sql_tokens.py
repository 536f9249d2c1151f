"""SQL is read as SQLite reads it, by one reader."""

import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilsql.databases.neighbours import constants, join
from distilsql.databases.sql_tokens import dotted_tokens, orders_its_rows, tokenise, tokens_of
from distilsql.metrics.hardness import clauses_of
from distilsql.metrics.plugging import plugged
from distilsql.metrics.rules import results_equal

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT n FROM t ORDER BY n", True),
        ("SELECT n FROM t order\n\tby n", True),
        ("SELECT n FROM t ORDER /* smallest first */ BY n", True),
        ("SELECT n FROM t ORDER -- by\nBY n", True),
        ("SELECT n FROM t WHERE (a LIKE '10\\_%' ESCAPE '\\') ORDER BY n", True),
        ("SELECT n FROM t WHERE a <> 'C:\\' ORDER BY n", True),
        ('SELECT n FROM t WHERE "a\\" = 1 ORDER BY n', True),
        ("SELECT n FROM t WHERE a = ')' ORDER BY n", True),
        ("SELECT [a(] FROM t ORDER BY n", True),
        ("SELECT `(` FROM t ORDER BY n", True),
        ("SELECT n /* ( */ FROM t -- (\nORDER BY n", True),
        ("SELECT n FROM t -- it's\nORDER BY n", True),
        ("WITH q AS (SELECT n FROM t) SELECT n FROM q UNION SELECT 1 ORDER BY 1", True),
        ("SELECT n FROM t", False),
        ("SELECT n FROM (SELECT n FROM t ORDER BY n)", False),
        ("SELECT n FROM t -- ORDER BY n", False),
        ("SELECT n FROM t /* ORDER BY n", False),
        ("SELECT 'ORDER BY' FROM t", False),
        ('SELECT n AS "ORDER", n AS "BY" FROM t', False),
        ("SELECT rank() OVER (ORDER BY n) FROM t", False),
        ("SELECT rank() OVER w FROM t WINDOW w AS (ORDER BY n)", False),
        ("SELECT group_concat(n ORDER BY n) FROM t", False),
    ],
)
def test_when_the_order_of_rows_counts(sql, ordered):
    assert orders_its_rows(sql) is ordered
    assert results_equal(sql, [(1,), (2,)], [(2,), (1,)], "plain") is not ordered


TEXTS = st.text(st.sampled_from("abAB01_$ \n\t'\"`[]()/*-.,;\\éx€\u00a0=<>|:@?"), max_size=40)


@given(TEXTS)
def test_the_pieces_are_the_text(sql):
    assert "".join(token.text for token in tokenise(sql)) == sql


@given(TEXTS.map("SELECT {}".format))
def test_the_tokens_are_sqlites(sql):
    """Put together with comments and line breaks between them, the tokens make the statement that SQLite ran."""
    apart = "/* ( ' */\n".join(token.text for token in tokens_of(sql)) + "\n"
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            rows = connection.execute(sql).fetchall()
        except (sqlite3.Error, sqlite3.Warning):
            return
        assert connection.execute(apart).fetchall() == rows


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs ../shared/data")
def test_golds_mean_the_same_when_their_tokens_are_set_apart():
    records = json.loads((SHARED_DATA / "spider/dev.json").read_text())
    ran = 0
    for record in random.Random(0).sample(records, 200):
        path = SHARED_DATA / f"spider/database/{record['db_id']}/{record['db_id']}.sqlite"
        if not path.is_file():
            continue
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.text_factory = bytes
            rows = connection.execute(record["query"]).fetchall()
            assert connection.execute(join(dotted_tokens(record["query"]))).fetchall() == rows
            ran += 1
    assert ran


def test_every_reader_reads_past_comments_and_backslashes():
    sql = "SELECT a FROM t -- don't JOIN u ORDER BY\nWHERE b = 'C:\\' /* LIMIT 1 */ AND c = 5"
    assert clauses_of(sql) == ("WHERE",)
    assert list(constants(sql)) == [("b", "C:\\"), ("c", 5)]
    assert "SELECT a FROM t -- don't JOIN u ORDER BY\nWHERE b = 'x' /* LIMIT 1 */ AND c = 'x'" in plugged(
        sql, "SELECT 'x'"
    )
    for operator in ("<<", ">>", "==", "->>", "||"):
        assert operator in dotted_tokens(f"SELECT a {operator} b")
