"""Samples are spread over large tables, and no large table is scanned for them."""

import sqlite3
from contextlib import closing

import pytest

from distilsql.databases.url import place_of
from distilsql.synthesis.profile import SAMPLED_ROWS, profile
from distilsql.synthesis.roles import Role
from distilsql.synthesis.sampling import make_sampler
from distilsql.synthesis.source import Source, open_source
from engine_copies import ENGINES, at_server

ROWS = 40 * SAMPLED_ROWS
TABLES = (
    "CREATE TABLE log (id int PRIMARY KEY, amount int, note varchar(200))",
    "CREATE TABLE named (code varchar(20) PRIMARY KEY, amount int)",
    "CREATE TABLE loose (amount int)",
)
NUMBERS = {
    "sqlite": "(WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT i FROM n) AS s",
    "duckdb": "(SELECT CAST(i AS int) AS i FROM range(1, {} + 1) AS r (i)) AS s",
    "postgresql": "generate_series(1, {}) AS s (i)",
    "mysql": "(SELECT seq AS i FROM seq_1_to_{}) AS s",
}


def statements(engine):
    numbers = NUMBERS[engine].format(ROWS)
    padded = "printf('c%06d', i)" if engine in ("sqlite", "duckdb") else "concat('c', lpad({}, 6, '0'))"
    padded = padded.format("i::text" if engine == "postgresql" else "i")
    return [
        *TABLES,
        f"INSERT INTO log SELECT i, i, 'x' FROM {numbers}",
        f"INSERT INTO named SELECT {padded}, i FROM {numbers}",
        f"INSERT INTO loose SELECT i FROM {numbers}",
        "CREATE VIEW seen AS SELECT amount FROM loose",
        *(["ANALYZE TABLE log, named, loose"] if engine == "mysql" else []),
    ]


# A file and a server; on the others it takes long.
@pytest.fixture(
    scope="module",
    params=[
        pytest.param(each, marks=[pytest.mark.slow] if each in ("duckdb", "mysql") else [])
        for each in ENGINES
    ],
)
def large(request, tmp_path_factory):
    engine, folder = request.param, tmp_path_factory.mktemp("large")
    if engine == "sqlite":
        with closing(sqlite3.connect(folder / "large.sqlite")) as connection:
            for statement in statements(engine):
                connection.execute(statement)
            connection.commit()
        yield open_source(folder / "large.sqlite")
    elif engine == "duckdb":
        duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
        with duckdb.connect(str(folder / "large.duckdb")) as connection:
            for statement in statements(engine):
                connection.execute(statement)
        yield open_source(str(folder / "large.duckdb"))
    else:
        with at_server("large", engine, request, statements(engine)) as (place, _):
            yield open_source(place)


def test_a_large_table_is_sampled_over_its_whole_length(large):
    found = profile(large)
    for name in ("log", "named"):
        table = found.table(name)
        assert not table.is_exact
        assert ROWS / 2 < table.row_count < 2 * ROWS, name
        amount = table.column("amount")
        assert amount.role is Role.AMOUNT
        assert SAMPLED_ROWS / 2 < amount.count <= SAMPLED_ROWS
        assert amount.quantiles[-1] > 0.9 * ROWS, "the first rows alone would not say so"
    spread = found.table("loose").column("amount").quantiles[-1]
    # MySQL gives a table without a key no way to its middle.
    assert spread > 0.9 * ROWS or large.engine == "mysql"
    assert found.table("seen").column("amount").quantiles[-1] <= SAMPLED_ROWS + 1
    assert profile(large) == found


def test_no_statement_reads_a_large_table_to_its_end(large, monkeypatch):
    """By PostgreSQL's own account of what each statement of a profile read."""
    if large.engine != "postgresql":
        pytest.skip("only PostgreSQL says how many rows a statement read")
    asked, real = [], Source.read
    monkeypatch.setattr(Source, "read", lambda source, sql: asked.append(sql) or real(source, sql))
    profile(large)
    assert len(asked) > 6
    import psycopg

    from servers import PASSWORD

    host, name = dict(large.path.query)["host"], large.path.name
    with psycopg.connect(host=host, user="owner", password=PASSWORD, dbname=name) as connection:
        for sql in asked:
            plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN (ANALYZE, TIMING off) {sql}"))
            read = [
                line
                for line in plan.split("\n")
                if "Scan" in line and "actual rows=" in line and " pg_" not in line
            ]
            for line in read:
                assert int(line.split("actual rows=")[1].split()[0]) <= 4 * SAMPLED_ROWS, plan


def test_deleted_rows_leave_a_sample(request):
    made = [
        "CREATE TABLE log (id int PRIMARY KEY, amount int)",
        f"INSERT INTO log SELECT i, i FROM generate_series(1, {ROWS}) AS s (i)",
        "DELETE FROM log WHERE id % 3 = 1",
        "CREATE TABLE parted (at int, amount int) PARTITION BY RANGE (at)",
        f"CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO ({ROWS // 2})",
        f"CREATE TABLE part_2 PARTITION OF parted FOR VALUES FROM ({ROWS // 2}) TO ({ROWS + 1})",
        f"INSERT INTO parted SELECT i, i FROM generate_series(1, {ROWS}) AS s (i)",
        "ANALYZE parted",
    ]
    with at_server("holes", "postgresql", request, made) as (place, _):
        found = profile(open_source(place))
        assert {table.name for table in found.tables} == {"log", "parted"}
        for table in found.tables:
            assert ROWS / 3 < table.row_count < 2 * ROWS
            assert table.column("amount").quantiles[-1] > 0.9 * ROWS
            assert table.column("amount").count > SAMPLED_ROWS / 2


def test_a_column_called_rowid_is_no_row_number(tmp_path):
    path = tmp_path / "own.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (rowid int, amount int)")
        connection.executemany("INSERT INTO t VALUES (7, ?)", ((n,) for n in range(5 * SAMPLED_ROWS)))
        connection.commit()
    source = open_source(path)
    sample = make_sampler(source).sample(source.schema.tables[0], SAMPLED_ROWS)
    assert sample.row_count == 5 * SAMPLED_ROWS
    amounts = [amount for _, amount in sample.rows]
    assert SAMPLED_ROWS - 5 < len(set(amounts)) == len(amounts) <= SAMPLED_ROWS


@pytest.mark.parametrize("engine", ["postgresql", "duckdb"])
def test_large_cells_and_odd_types(request, engine, tmp_path):
    made = [
        "CREATE TABLE t (id int PRIMARY KEY, body text, tags varchar[], ok boolean, seen_at timestamp, kind uuid)",
        "INSERT INTO t SELECT i, repeat('x', 100000), ['a', 'b'], i % 2 = 0, TIMESTAMP '2020-01-31 10:00:00', "
        "'a1b2c3d4-0000-0000-0000-000000000001' FROM range(300) AS s (i)",
    ]
    if engine == "duckdb":
        duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
        with duckdb.connect(str(tmp_path / "odd.duckdb")) as connection:
            for statement in made:
                connection.execute(statement)
        check_odd(open_source(str(tmp_path / "odd.duckdb")))
        return
    made[1] = (
        made[1].replace("['a', 'b']", "ARRAY['a', 'b']").replace("range(300)", "generate_series(0, 299)")
    )
    made[1] = made[1].replace(
        "'a1b2c3d4-0000-0000-0000-000000000001'", "'a1b2c3d4-0000-0000-0000-000000000001'::uuid"
    )
    with at_server("odd", engine, request, made) as (place, _):
        check_odd(open_source(place_of(place)))


def check_odd(source):
    columns = {column.name: column for column in profile(source).table("t").columns}
    roles = {name: column.role for name, column in columns.items()}
    assert roles["body"] is Role.TEXT
    assert roles["tags"] is Role.NONE
    assert roles["ok"] is Role.FLAG
    assert (roles["seen_at"], columns["seen_at"].has_time) == (Role.DATE, True)
