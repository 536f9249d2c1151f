"""One story on four engines: the same tables, questions and predictions give the same prompts, but for quotes, and the
same verdicts."""

import json
import sqlite3
from contextlib import closing

import pytest

from distilsql.data.check import check
from distilsql.data.load import load_benchmark
from distilsql.databases.database import open_database
from distilsql.databases.execute import execute
from distilsql.databases.normalise import normalise_sql
from distilsql.databases.url import DIALECTS, place_of
from distilsql.metrics.evaluate import evaluate
from distilsql.metrics.query_check import check_teacher_queries
from distilsql.metrics.scores import VerdictOutcome
from distilsql.prompts.codes import PromptOptions, build_prefix, build_suffix
from servers import PASSWORD

ENGINES = ("sqlite", "duckdb", "postgresql", "mysql")
# In the order of their names, with a reserved word, a space and a name that begins with a digit among the columns.
TABLES = """
CREATE TABLE concert (id int PRIMARY KEY, singer_id int, stage_id int, held date, starts text, "group" text,
    "ticket price" decimal(8, 2), "2nd_act" text, FOREIGN KEY (singer_id) REFERENCES singer (id),
    FOREIGN KEY (stage_id) REFERENCES stage (id));
CREATE TABLE seat (stage_id int, number int, is_good int, PRIMARY KEY (stage_id, number));
CREATE TABLE singer (id int PRIMARY KEY, name text, country text, age int, fee decimal(8, 2));
CREATE TABLE stage (id int PRIMARY KEY, name text, note text);
CREATE TABLE unused (id int, name text);
INSERT INTO singer VALUES (1, 'Joe Sharp', 'France', 52, 10.50);
INSERT INTO singer VALUES (2, 'Ann', 'New York', 32, 3);
INSERT INTO singer VALUES (3, 'O''Hara', 'France', NULL, NULL);
INSERT INTO singer VALUES (4, 'Zoë', 'Spain', 32, 0.10);
INSERT INTO stage VALUES (1, 'Main Hall', NULL);
INSERT INTO stage VALUES (2, 'Cellar', 'low');
INSERT INTO concert VALUES (1, 1, 1, '2020-01-31', '20:15:00', 'rock', 9.99, 'Ann');
INSERT INTO concert VALUES (2, 2, 1, '2021-02-28', '19:00:00', NULL, 12, NULL);
INSERT INTO concert VALUES (3, 2, 2, NULL, '19:00:00', 'jazz', 12, 'Joe Sharp');
INSERT INTO seat VALUES (1, 1, 1);
INSERT INTO seat VALUES (1, 2, 0);
"""
# Question, gold, prediction, and what the verdict should be. {q} is the engine's quote of a name.
QUESTIONS = (
    (
        "How many singers are there?",
        "SELECT count(*) FROM singer",
        "SELECT COUNT(id) FROM singer;",
        "CORRECT",
    ),
    (
        "Names of singers from France, please.",
        "SELECT name FROM singer WHERE country = 'France'",
        "SELECT T1.name FROM singer AS T1 WHERE T1.country = 'France' -- all of them",
        "CORRECT",
    ),
    (
        "Names by age, the oldest first?",
        "SELECT name FROM singer WHERE age IS NOT NULL ORDER BY age DESC, name",
        "SELECT name FROM singer WHERE age IS NOT NULL ORDER BY age, name",
        "WRONG",
    ),
    (
        "The sum of all fees?",
        "SELECT sum(fee) FROM singer",
        "SELECT sum(fee) FROM singer WHERE fee > 0",
        "CORRECT",
    ),
    (
        "Dates and prices of jazz or rock?",
        "SELECT held, {q}ticket price{q} FROM concert WHERE {q}group{q} IN ('jazz', 'rock')",
        "SELECT {q}ticket price{q}, held FROM concert WHERE {q}group{q} = 'rock' OR {q}group{q} = 'jazz'",
        "CORRECT",
    ),
    (
        "Does O'Hara sing?",
        "SELECT count(*) FROM concert c JOIN singer s ON c.singer_id = s.id WHERE s.name = 'O''Hara'",
        "SELECT count(*) FROM concert WHERE singer_id = 3",
        "CORRECT",
    ),
    ("Is seat 1 good?", "SELECT is_good = 1 FROM seat WHERE number = 1", "SELECT 1", "CORRECT"),
    (
        "Singers older than 60?",
        "SELECT name FROM singer WHERE age > 60",
        "SELECT id FROM singer WHERE id > 9",
        "CORRECT",
    ),
    (
        "When did Zoë sing?",
        "SELECT held FROM concert WHERE singer_id = 4",
        "SELECT absent FROM concert",
        "SQL_ERROR",
    ),
    ("How old is Ann?", "SELECT age FROM singer WHERE name = 'Ann'", "DELETE FROM singer", "SQL_ERROR"),
    ("Second acts?", "SELECT {q}2nd_act{q} FROM concert", "SELECT count(*) FROM concert", "WRONG"),
    (
        "Stages per concert?",
        "SELECT name, count(*) FROM stage JOIN concert ON stage.id = stage_id GROUP BY name",
        "WITH n AS (SELECT stage_id, count(*) AS k FROM concert GROUP BY stage_id) "
        "SELECT n.k, stage.name FROM n JOIN stage ON stage.id = n.stage_id",
        "CORRECT",
    ),
    (
        "Concerts after February 2020?",
        "SELECT id FROM concert WHERE held > '2020-02-01'",
        "SELECT 2",
        "CORRECT",
    ),
)


def quoted(sql, engine):
    return sql.replace("{q}", "`" if engine == "mysql" else '"')


def statements(engine):
    sql = TABLES.replace('"', "`") if engine == "mysql" else TABLES
    made = [part.strip() for part in sql.split(";") if part.strip()]
    first = ("CREATE TABLE singer", "CREATE TABLE stage")  # what others refer to
    return sorted(made, key=lambda part: (not part.startswith("CREATE"), not part.startswith(first)))


# A file and a server; the others are slow tests.
@pytest.fixture(
    scope="module",
    params=[
        "sqlite",
        "postgresql",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("duckdb", "mysql")),
    ],
)
def place(request, tmp_path_factory):
    """The place of the concerts on each engine."""
    engine, folder = request.param, tmp_path_factory.mktemp("concerts")
    if engine == "sqlite":
        path = folder / "concerts.sqlite"
        with closing(sqlite3.connect(path)) as connection:
            # As they stand: a SQLite file has its tables in this order.
            connection.executescript(f"BEGIN; {TABLES} COMMIT;")
        yield path
    elif engine == "duckdb":
        duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
        with duckdb.connect(str(folder / "concerts.duckdb")) as connection:
            for statement in statements(engine):
                connection.execute(statement)
        yield place_of(f"duckdb:///{folder}/concerts.duckdb")
    else:
        server = request.getfixturevalue("mariadb_server" if engine == "mysql" else "postgresql_server")
        owner_of = "mysql" if engine == "mysql" else "postgres"
        server.run(owner_of, "CREATE DATABASE concerts")
        if engine == "mysql":
            account = "asker@localhost"
            server.run("concerts", *statements(engine), f"CREATE USER {account} IDENTIFIED BY '{PASSWORD}'")
            server.run("concerts", f"GRANT SELECT ON concerts.* TO {account}")
        else:
            account = "asker"
            server.run("concerts", *statements(engine), f"CREATE ROLE asker LOGIN PASSWORD '{PASSWORD}'")
            server.run("concerts", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO asker")
        yield place_of(server.url("asker", "concerts"))
        if engine == "mysql":
            server.run(owner_of, "DROP DATABASE concerts", f"DROP USER {account}")
        else:
            server.run(owner_of, "DROP DATABASE concerts WITH (FORCE)", "DROP ROLE asker")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What SQLite's file gives: its prompts."""
    path = tmp_path_factory.mktemp("expected") / "concerts.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"BEGIN; {TABLES} COMMIT;")
    return path


@pytest.fixture
def pairs(place, tmp_path):
    engine = "sqlite" if not hasattr(place, "engine") else place.engine
    file = tmp_path / "pairs.jsonl"
    records = [{"question": question, "sql": quoted(gold, engine)} for question, gold, *_ in QUESTIONS]
    file.write_text("\n".join(map(json.dumps, records)))
    return file


@pytest.fixture
def benchmark(place, pairs):
    return load_benchmark(pairs, database=place)


def prompts(benchmark, cache):
    options = PromptOptions(quoting="sqlite")
    (database,) = benchmark.databases.values()
    suffixes = [
        build_suffix(example, database, options, cache_folder=cache) for example in benchmark.examples
    ]
    return [build_prefix(database, options), *suffixes]


def test_the_prompts_are_the_same_but_for_quotes(benchmark, expected, pairs, tmp_path):
    (database,) = benchmark.databases.values()
    quote = "`" if database.engine in ("sqlite", "mysql") else '"'
    found = prompts(benchmark, tmp_path / "cache")
    for name in ("group", "ticket price", "2nd_act"):
        assert f"concert.{quote}{name}{quote}" in found[0]
    of_sqlite = prompts(load_benchmark(pairs, database=expected), tmp_path / "cache")
    assert [text.replace(quote, "`") for text in found] == of_sqlite
    assert "singer.country ( France )" in found[2]
    assert "concert.singer_id = singer.id" in found[0]


def test_the_verdicts_are_the_same(benchmark):
    (database,) = benchmark.databases.values()
    predictions = [quoted(predicted, database.engine) for _, _, predicted, _ in QUESTIONS]
    scores = evaluate(predictions, benchmark)
    outcomes = [verdict.outcome for verdict in scores.verdicts]
    assert outcomes == [VerdictOutcome[name] for *_, name in QUESTIONS]
    assert "p@ss" not in scores.to_json()


def test_golds_are_right_by_themselves_and_normalised_they_still_run(benchmark):
    (database,) = benchmark.databases.values()
    golds = [example.gold_sql for example in benchmark.examples]
    assert evaluate(golds, benchmark).accuracy == 1.0
    normal = [normalise_sql(gold, database.engine) for gold in golds]
    assert evaluate(normal, benchmark).accuracy == 1.0
    assert any("concert c JOIN singer s" in sql for sql in normal)


def test_data_check_finds_nothing(pairs, place):
    (checked,) = check(pairs, database=place).benchmarks
    assert not checked.problems
    assert (checked.gold_runs, checked.gold_empty) == (len(QUESTIONS), 2)


def test_data_check_names_what_does_not_run(place, tmp_path):
    file = tmp_path / "broken.jsonl"
    records = [{"question": "?", "sql": "SELECT absent FROM singer"}, {"question": "!", "sql": "SELECT 1"}]
    file.write_text("\n".join(map(json.dumps, records)))
    (checked,) = check(file, database=place).benchmarks
    assert [problem.kind for problem in checked.problems] == ["gold_fails"]
    assert checked.gold_runs == 1


def test_the_teachers_queries_are_checked_in_the_dialect(benchmark):
    (database,) = benchmark.databases.values()
    queries = {
        example.example_id: quoted(predicted, database.engine)
        for example, (_, _, predicted, _) in zip(benchmark.examples, QUESTIONS, strict=True)
    }
    found = check_teacher_queries(queries, benchmark)
    right = sum(name == "CORRECT" for *_, name in QUESTIONS)
    assert (found.completions, found.parse, found.match_gold) == (len(QUESTIONS), len(QUESTIONS), right)


def test_every_name_runs_as_the_prompt_shows_it(place):
    from distilsql.prompts.codes import options_for, shown_name

    database = open_database(place)
    quoting = options_for(database, PromptOptions(quoting="sqlite")).quoting
    for table in database.schema.tables:
        names = ", ".join(shown_name(column.name, quoting) for column in table.columns)
        found = execute(place, f"SELECT {names} FROM {shown_name(table.name, quoting)}", mode="serving")
        assert found.columns == tuple(column.name for column in table.columns), found


CELLS = {
    "postgresql": (
        ("'a1b2c3d4-0000-0000-0000-000000000001'::uuid", "a1b2c3d4-0000-0000-0000-000000000001"),
        ("'\\x00ff'::bytea", b"\x00\xff"),
        ("ARRAY[1, 2]", "[1, 2]"),
        ("'{\"a\": [1.5, null]}'::jsonb", '{"a": [1.5, null]}'),
        ("interval '1 day 2 hours'", "26:00:00"),
        ("true", True),
    ),
    "duckdb": (
        ("'a1b2c3d4-0000-0000-0000-000000000001'::uuid", "a1b2c3d4-0000-0000-0000-000000000001"),
        ("'\\x00\\xff'::blob", b"\x00\xff"),
        ("[1, 2]", "[1, 2]"),
        ("{'a': 1.5}", '{"a": 1.5}'),
        ("interval '26 hours'", "26:00:00"),
        ("true", True),
    ),
    "mysql": (
        ("x'00ff'", b"\x00\xff"),
        ("CAST('26:00:00' AS time)", "26:00:00"),
        ("CAST('-00:00:01' AS time)", "-00:00:01"),
        ("true", 1),
    ),
    "sqlite": (("x'00ff'", b"\x00\xff"), ("true", 1)),
}
ALIKE = (
    ("CAST(2.50 AS decimal(8, 2))", 2.5),
    ("CAST(3.00 AS decimal(8, 2))", 3),
    ("CAST(NULL AS decimal(8, 2))", None),
    ("count(*)", 1),
    ("'it''s'", "it's"),
)


def test_cells_are_as_sqlite_has_them(place):
    database = open_database(place)
    for expression, cell in (*ALIKE, *CELLS[database.engine]):
        found = execute(place, f"SELECT {expression}")
        assert found.rows == ((cell,),), found
    if database.engine != "sqlite":
        for written in ("date '2020-01-31'", "CAST('2020-01-31 23:59:00' AS {})"):
            kind = "datetime" if database.engine == "mysql" else "timestamp"
            found = execute(place, f"SELECT {written.format(kind)}")
            assert found.rows[0][0] in ("2020-01-31", "2020-01-31 23:59:00"), found


def test_every_engine_has_a_story():
    assert set(ENGINES) == set(DIALECTS)
