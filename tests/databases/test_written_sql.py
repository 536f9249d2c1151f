"""The query in what a model wrote: found in what chat models put around it, and never changed where it runs."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilsql.databases.written_sql import is_complete, query_in

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"
Q = "SELECT name FROM singer WHERE note = 'a; b'\nORDER BY age"


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        (Q, ()),
        (f"{Q};", ()),
        (f"-- by age\n{Q}", ()),
        (f"```sql\n{Q}\n```", ("fence",)),
        (f"```\n{Q}\n```", ("fence",)),
        (f"```SQL\r\n{Q}\n```\n", ("fence",)),
        (f"```sql {Q}```", ("fence",)),
        (f"```sqlite\n{Q};\n```", ("fence",)),
        (f"```sql\n{Q}", ("fence",)),  # out of tokens
        (f"{Q}\n```", ("fence",)),  # the opening fence was in the prompt
        (f"{Q}\n```\nThis orders the singers by age.", ("fence",)),
        (f"Here's the query you asked for:\n\n```sql\n{Q}\n```\nIt's sorted.", ("fence",)),
        (
            f"First try:\n```sql\nSELECT 1\n```\nBetter:\n```sql\n{Q}\n```\nRun with:\n```bash\nsqlite3 x\n```",
            ("fence",),
        ),
        (f"<think>We need SELECT name. Let's see…\nSELECT 1</think>\n\n{Q}", ("thoughts",)),
        (f"We need names. </think>{Q}", ("thoughts",)),  # the opening tag was in the prompt
        (f"<think>\nIt's easy.\n</think>\n\n```sql\n{Q}\n```", ("thoughts", "fence")),
        (f"<thinking>x</thinking>The query is:\n{Q}", ("thoughts", "prose")),
        (f"Sure! Here's the SQL:\n{Q}", ("prose",)),
        (f"SQL: {Q}", ("prose",)),
        (f"**Answer:** {Q}", ("prose",)),
        (f"The query `{Q}` lists them.", ("prose",)),
        (f"{Q};\n\nThis query lists the singers.", ("prose",)),
        (f"{Q}\n\nThis query lists the singers by age; it's simple.", ("prose",)),
        (f"{Q}\n\n**Explanation**: the singers by age.", ("prose",)),
        (f"With this schema, as you can see, one table does.\n{Q}", ("prose",)),
    ],
)
def test_the_query_is_found(text, stripped):
    found = query_in(text)
    assert found.stripped == stripped
    sql = found.sql.strip().removesuffix(";")
    assert sql.removeprefix("-- by age\n") == Q


@pytest.mark.parametrize(
    "text",
    [
        "I do not know.",
        "",
        "```python\nprint(1)\n```",
        "SELECT 1; DROP TABLE t",  # two statements stay two
        "singer name age",
        "PRAGMA table_info(t)",
    ],
)
def test_what_holds_no_query_is_left_as_it_is(text):
    assert query_in(text).sql == text
    assert query_in(text).stripped == ()


def test_who_only_thought_wrote_nothing():
    assert query_in("<think>Let me see: SELECT name FROM").sql == ""


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT '```sql\nSELECT 2\n```'",
        "SELECT 1 AS `a\n``\nb`",
        "SELECT '<think>x</think> SELECT 2'",
        "WITH q AS (SELECT 1 AS a)\n\nSELECT\n\na\n\nFROM\n\nq",
        "WITH RECURSIVE q(a) AS NOT MATERIALIZED (SELECT 1) SELECT a FROM q",
        "SELECT 1 -- Here's a note: SELECT 2\n;",
        "SELECT 1 /* done;\n\nThis is it. */ ; -- end",
        "VALUES (1),\n\n(2)",
        "SELECT count(*)\n\nTotal FROM (SELECT 1)",
        "EXPLAIN QUERY PLAN\nSELECT 1",
    ],
)
def test_what_runs_is_not_changed(sql):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(sql)
    assert query_in(sql).sql == sql
    assert query_in(sql).stripped == ()


PIECES = [
    "SELECT 1",
    " AS ",
    "`",
    "```",
    "\n",
    "\n\n",
    "'",
    '"',
    ";",
    "sql",
    "-- ",
    "/*",
    "*/",
    " a",
    ", ",
    "2",
]
PIECES += ["This is ", "<think>", "</think>", "FROM (SELECT 3)"]


@given(st.lists(st.sampled_from(PIECES), max_size=10).map(lambda pieces: "SELECT 1" + "".join(pieces)))
def test_whatever_runs_is_not_changed(sql):
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute(sql)
        except (sqlite3.Error, sqlite3.Warning):
            return
    assert query_in(sql).sql == sql


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize("name", ["spider/dev.json", "bird/dev.json"])
def test_golds_come_out_as_they_are_from_every_wrapping(name):
    file = SHARED_DATA / name
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    records = json.loads(file.read_text())
    golds = list(dict.fromkeys(record.get("query") or record["SQL"] for record in records))
    for gold in golds[::7]:
        assert query_in(gold).sql == gold
        assert (
            query_in(f"<think>It's easy.</think>Here it is:\n```sql\n{gold}\n```\nThat's it.").sql.strip()
            == gold.strip()
        )


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        (Q, False),
        (f"{Q};", True),
        (f"{Q};\nIt", True),
        ("SELECT ';", False),  # in a string, so far
        (f"Sure; here it is:\n{Q}", False),
        (f"<think>{Q};", False),
        (f"```sql\n{Q}", False),
        (f"```sql\n{Q};\n```", True),
        ("```bash\nsqlite3 x\n```\n", False),
    ],
)
def test_whether_an_answer_has_its_whole_query(text, complete):
    assert is_complete(text) is complete
