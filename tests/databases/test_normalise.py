import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from distilsql.databases.normalise import normalise_sql, without_comments

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED_DATA.is_dir(), reason="needs the real benchmarks in ../shared/data"
)


@pytest.mark.parametrize(
    ("sql", "normal"),
    [
        ("select Name ,  AGE\nfrom Singer;", "SELECT name , age FROM singer"),
        ("SELECT COUNT(*) FROM T", "SELECT count(*) FROM t"),
        ("SELECT a FROM t WHERE b = \"Top Of\" AND c = 'It''s  SELECT'", None),
        ("SELECT `Home Town`, [Zip Code] FROM t", "SELECT `home town`, [zip code] FROM t"),
        ("SELECT a -- the name\nFROM t /* all */ WHERE b", "SELECT a FROM t WHERE b"),
        ("SELECT t.order, t.End FROM t", "SELECT t.order, t.end FROM t"),
        (
            "SELECT T1.a, T2.b FROM X AS T1 JOIN y T2 ON T1.id = T2.id",
            "SELECT x.a, y.b FROM x JOIN y ON x.id = y.id",
        ),
        (
            "SELECT t1.a FROM x AS t1 EXCEPT SELECT t1.a FROM y AS t1 WHERE t1.b = 't1.b'",
            "SELECT x.a FROM x EXCEPT SELECT y.a FROM y WHERE y.b = 't1.b'",
        ),
        (
            "SELECT Név FROM Ärzte",
            "SELECT név FROM Ärzte",
        ),  # SQLite folds A to Z only: ärzte is another table
        ("SELECT T1.a FROM `My Tab` AS T1", "SELECT `my tab`.a FROM `my tab`"),
        ("SELECT T1.a FROM x AS T1, y AS T2", "SELECT x.a FROM x, y"),
        ("SELECT T11.a FROM x AS T11", "SELECT t11.a FROM x AS t11"),
        ("SELECT u.a FROM x AS u JOIN y AS T2", "SELECT u.a FROM x AS u JOIN y"),
    ],
)
def test_spelling(sql: str, normal: str | None) -> None:
    assert normalise_sql(sql) == (sql if normal is None else normal)


@pytest.mark.parametrize(
    ("engine", "sql", "normal"),
    [
        ("postgresql", "select T1.Name::Text from Singer as T1;", "SELECT singer.name::text FROM singer"),
        ("postgresql", 'SELECT "Name" FROM "Singer" AS t1 WHERE t1.a = E\'it\\\'s -- x\'', None),
        (
            "postgresql",
            "SELECT $x$ a -- b $x$ /* one /* two */ one */ FROM T",
            "SELECT $x$ a -- b $x$ FROM t",
        ),
        ("mysql", "select COUNT(*) from Singer T1 # all\nwhere T1.Name = 'it\\'s -- x'", None),
        ("mysql", 'SELECT T1.`Full Name` FROM Singer AS T1 WHERE T1.Name = "T1.x"', None),
        ("mysql", "SELECT a FROM t WHERE b = 'never closed", None),
        ("duckdb", "SELECT * EXCLUDE (A) FROM T order  by all", "SELECT * exclude (a) FROM t ORDER BY ALL"),
    ],
)
def test_spelling_in_other_dialects(engine: str, sql: str, normal: str | None) -> None:
    expected = {
        "select COUNT(*)": "SELECT count(*) FROM Singer WHERE Singer.Name = 'it\\'s -- x'",
        "SELECT T1.`Full": 'SELECT Singer.`Full Name` FROM Singer WHERE Singer.Name = "T1.x"',
        'SELECT "Name" F': 'SELECT "Name" FROM "Singer" WHERE "Singer".a = E\'it\\\'s -- x\'',
    }
    assert normalise_sql(sql, engine) == (normal or expected.get(sql[:15], sql))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sql", "line"),
    [
        (" SELECT  A\n FROM\tt ", "SELECT A FROM t"),
        ("SELECT 'New  York',\n\"a\tb\", `c  d`", "SELECT 'New  York', \"a\tb\", `c  d`"),
        ("SELECT 'two\nlines',\n\"a\nname\"", "SELECT 'two\nlines', \"a\nname\""),
        ("SELECT a -- all of it\nFROM t", "SELECT a FROM t"),
        ("SELECT 'never  closed", "SELECT 'never  closed"),
        ("SELECT a /* to\nthe end", "SELECT a"),
        ("SELECT a\u00a0b\u3000 FROM €", "SELECT a\u00a0b\u3000 FROM €"),  # parts of names, to SQLite
    ],
)
def test_without_comments_what_is_quoted_stays(sql: str, line: str) -> None:
    assert without_comments(sql) == line


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT t1.a FROM x AS t1 JOIN x AS t2 ON t1.a = t2.b",  # a self-join
        "SELECT t1.a FROM x AS t1 WHERE t1.a IN (SELECT x.b FROM x WHERE x.a = t1.b)",  # x would mean the inner x
        "SELECT t1.a FROM x JOIN x AS t1 ON x.a = t1.b",
        "SELECT t1.role FROM cast AS t1",  # cast.role is a syntax error
        "SELECT t1.a FROM (SELECT a FROM x) AS t1",  # no table to name
    ],
)
def test_aliases_stay_where_a_table_name_would_mean_something_else(sql: str) -> None:
    assert normalise_sql(sql) == sql


SCRIPT = """
CREATE TABLE Ann (a INT, b TEXT); CREATE TABLE bob (a INT, c TEXT); CREATE TABLE cyd (b TEXT, c TEXT);
INSERT INTO Ann VALUES (1, 'x'), (2, 'y'), (2, 'x'), (NULL, 'Select');
INSERT INTO bob VALUES (1, 'p'), (2, 'q'), (3, 'x');
INSERT INTO cyd VALUES ('x', 'p'), ('y', 'x'), ('y', 'q');
CREATE TABLE T3 (a INT, c TEXT); INSERT INTO T3 VALUES (1, 'x'), (3, 'q');
"""
COLUMNS = {"Ann": ("a", "B"), "bob": ("a", "c"), "cyd": ("b", "C"), "T3": ("a", "c")}


@st.composite
def selects(draw: st.DrawFn, outer: tuple[tuple[str, str], ...] = (), depth: int = 0) -> str:
    """A query that SQLite runs: joins, self-joins, nested and correlated, with the aliases reused at will, some of them
    another table's name."""
    tables = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=3))
    names: list[str] = []
    for table in tables:
        free = [name for name in ("T1", "t2", "T3", "z", "Bob", "") if (name or table).lower() not in names]
        names.append((draw(st.sampled_from(free)) or table).lower())
    sources = [
        table if name == table.lower() else f"{table}{draw(st.sampled_from([' AS ', ' ']))}{name}"
        for table, name in zip(tables, names, strict=True)
    ]
    mine = [(name, column) for table, name in zip(tables, names, strict=True) for column in COLUMNS[table]]
    column = st.sampled_from(mine).map(".".join)
    outer = tuple(reference for reference in outer if reference[0] not in names)  # the others are shadowed
    visible = st.sampled_from([*mine, *outer]).map(".".join)
    conditions = [f"{draw(visible)} = {draw(visible)}", f"{draw(column)} != 'Select'"]
    if depth < 2 and draw(st.booleans()):
        inner = draw(selects(outer=(*outer, *mine), depth=depth + 1))
        conditions.append(f"{draw(column)} {draw(st.sampled_from(['IN', 'not in']))} ({inner})")
    joined = draw(st.sampled_from([" JOIN ", " , ", "  join\n"])).join(sources)
    sql = f"SELECT {draw(column)} FROM {joined} WHERE {draw(st.sampled_from([' AND ', ' or '])).join(conditions)}"
    if depth == 0 and draw(st.booleans()):
        return f"{sql} {draw(st.sampled_from(['UNION', 'except', 'INTERSECT']))} {draw(selects(depth=2))}"
    return sql


@given(selects())
def test_the_normal_form_gives_the_same_rows_and_is_its_own(sql: str) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCRIPT)
        normal = normalise_sql(sql)
        try:
            rows = connection.execute(sql).fetchall()
        except sqlite3.OperationalError:  # an ambiguous name: not a gold
            return
        assert connection.execute(normal).fetchall() == rows
    assert normalise_sql(normal) == normal


@given(
    st.lists(
        st.sampled_from([*"ab'\"`[]() .,;-/*\n1", "T1", "t2", " AS ", "SELECT ", " FROM ", " JOIN "]),
        max_size=25,
    )
)
@example(["SELECT ", " FROM ", "a", " AS ", "T1", '"', "T1"])
@example(["SELECT ", " FROM ", "a", " ", "T1", " AS ", "t2"])
def test_any_text_has_a_normal_form_without_comments(pieces: list[str]) -> None:
    normal = normalise_sql("".join(pieces))
    assert normalise_sql(normal) == normal
    quoted = any(quote in normal for quote in "'\"`[")
    assert "\n" not in normal or quoted


def golds(file: str, field: str) -> list[tuple[str, str]]:
    return [(record["db_id"], record[field]) for record in json.loads((SHARED_DATA / file).read_text())]


@needs_shared
@pytest.mark.parametrize(
    ("file", "field", "databases", "run", "aliased"),
    [
        ("spider/dev.json", "query", "spider/database", 1034, 4),
        pytest.param("bird/dev.json", "SQL", "bird/dev_databases", 432, 3, marks=pytest.mark.slow),
        pytest.param(
            "spider/train_spider.json", "query", "spider/database", 6901, 16, marks=pytest.mark.slow
        ),
        pytest.param(
            "spider/train_others.json", "query", "spider/database", 1659, 121, marks=pytest.mark.slow
        ),
    ],
)
def test_every_gold_gives_the_same_rows(
    file: str, field: str, databases: str, run: int, aliased: int
) -> None:
    connections: dict[str, sqlite3.Connection] = {}

    def opened(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        connection.text_factory = lambda raw: raw.decode(errors="ignore")
        return connection

    ran = kept = 0
    for db_id, sql in golds(file, field):
        path = SHARED_DATA / databases / db_id / f"{db_id}.sqlite"
        if not path.is_file():
            continue
        connection = connections.get(db_id) or connections.setdefault(db_id, opened(path))
        try:
            rows = connection.execute(sql).fetchall()
        except sqlite3.OperationalError:
            continue
        normal = normalise_sql(sql)
        assert connection.execute(normal).fetchall() == rows, sql
        ran += 1
        kept += " t1." in normal
    for connection in connections.values():
        connection.close()
    assert (ran, kept) == (run, aliased)
