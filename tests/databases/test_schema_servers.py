"""Schemas, samples and values of PostgreSQL, MariaDB and DuckDB: what their catalogues say, within bounds."""

import logging
from dataclasses import replace

import pytest

from distilsql.databases import cells
from distilsql.databases.database import open_database
from distilsql.databases.dialect import common_type, name_in
from distilsql.databases.execute import execute
from distilsql.databases.job import Outcome, require_available
from distilsql.databases.schema import ForeignKey, Schema
from distilsql.databases.url import place_of
from distilsql.databases.values import load_value_index, matched_values, sample_values
from distilsql.errors import DatabaseUnavailable, DataError
from distilsql.prompts.relevance import restrict
from servers import PASSWORD

POSTGRESQL = f"""
CREATE SCHEMA sales;
CREATE TABLE country (code char(2) PRIMARY KEY, "Name" text NOT NULL);
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE TABLE person (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, mood mood, tags text[],
  country char(2) REFERENCES country, born date, double_id int GENERATED ALWAYS AS (id_plain * 2) STORED,
  id_plain int, note varchar(9));
COMMENT ON TABLE person IS 'somebody we know';
COMMENT ON COLUMN person.note IS 'what is said of them';
CREATE TABLE sales.deal (person_id int, line int, amount double precision, PRIMARY KEY (person_id, line),
  FOREIGN KEY (person_id) REFERENCES person (id));
CREATE TABLE sales.part (person_id int, line int,
  FOREIGN KEY (person_id, line) REFERENCES sales.deal (person_id, line));
CREATE TABLE sales.country (other int);
CREATE SCHEMA past;
CREATE TABLE past.country (code char(2) PRIMARY KEY);
CREATE TABLE past.town (id int, code char(2) REFERENCES past.country);
CREATE TABLE past.closed (code int);
CREATE VIEW glad AS SELECT id, country FROM person WHERE mood = 'glad';
CREATE VIEW of_glad AS SELECT count(*) AS n FROM glad;
CREATE MATERIALIZED VIEW kept AS SELECT 1 AS one;
CREATE TABLE closed (secret text);
CREATE TABLE half (open int, shut text);
CREATE TABLE measured (at date NOT NULL, v int) PARTITION BY RANGE (at);
CREATE TABLE measured_2020 PARTITION OF measured FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
INSERT INTO country VALUES ('FR', 'France'), ('ES', 'Spain');
INSERT INTO person (mood, tags, country, note) VALUES ('glad', ARRAY['a b', 'c'], 'FR', 'tall'),
  ('sad', NULL, NULL, NULL);
CREATE ROLE looker LOGIN PASSWORD '{PASSWORD}';
GRANT USAGE ON SCHEMA sales, past TO looker;
GRANT SELECT ON ALL TABLES IN SCHEMA public, sales, past TO looker;
REVOKE SELECT ON public.closed, half FROM looker;
GRANT SELECT (open) ON half TO looker;
"""


@pytest.fixture(scope="module")
def people(postgresql_server):
    postgresql_server.run("postgres", "CREATE DATABASE people")
    postgresql_server.run("people", POSTGRESQL)
    yield postgresql_server
    postgresql_server.run("postgres", "DROP DATABASE people WITH (FORCE)", "DROP ROLE looker")


def columns(table):
    return {column.name: column.type for column in table.columns}


def test_postgresqls_catalogue(people, caplog):
    with caplog.at_level(logging.WARNING, "distilsql"):
        database = open_database(people.url("looker", "people"))
    assert database.db_id == "people"
    tables = {table.name: table for table in database.schema.tables}
    assert list(tables) == ["country", "half", "measured", "person", "glad", "kept", "of_glad"]
    assert [name for name, table in tables.items() if table.is_view] == ["glad", "kept", "of_glad"]
    assert columns(tables["country"]) == {"code": "char(2)", "Name": "text"}
    assert columns(tables["half"]) == {"open": "int"}
    assert columns(tables["person"])["mood"] == "enum ('glad', 'sad')"
    assert columns(tables["person"])["tags"] == "text[]"
    assert "double_id" in columns(tables["person"])
    assert tables["person"].comment == "somebody we know"
    assert tables["person"].columns[-1].comment == "what is said of them"
    assert [column.name for column in tables["person"].columns if column.is_primary_key] == ["id"]
    assert database.schema.foreign_keys == (ForeignKey("person", "country", "country", "code"),)
    assert "may not read closed" in caplog.text
    assert "p@ss" not in caplog.text


def test_several_schemas_by_the_search_path(people):
    database = open_database(people.url("looker", "people", "&search_path=sales,public"))
    tables = {table.name: table for table in database.schema.tables}
    assert columns(tables["country"]) == {"other": "int"}, "the bare name means the first schema's"
    assert {"deal", "part", "person"} <= tables.keys()
    assert [column.is_primary_key for column in tables["deal"].columns] == [True, True, False]
    assert database.schema.foreign_keys == (
        ForeignKey("deal", "person_id", "person", "id"),
        ForeignKey("part", "person_id", "deal", "person_id"),
        ForeignKey("part", "line", "deal", "line"),
    )
    for table in tables:
        assert execute(database.path, f"SELECT count(*) FROM {table}").outcome is Outcome.ROWS


def test_a_table_that_its_bare_name_does_not_mean_is_not_shown_and_named(people, caplog):
    with caplog.at_level(logging.WARNING, "distilsql"):
        schema = open_database(people.url("looker", "people", "&search_path=public,past")).schema
    assert "no question can be about past.closed, past.country: the bare name means" in caplog.text
    names = {table.name for table in schema.tables}
    assert "town" in names
    assert "closed" not in names, "its bare name means one that may not be read"
    assert not [key for key in schema.foreign_keys if key.table == "town"], "it refers to the one not shown"
    turned = open_database(people.url("looker", "people", "&search_path=past,public")).schema
    assert ForeignKey("town", "code", "country", "code") in turned.foreign_keys
    assert "closed" in {table.name for table in turned.tables}


def test_what_may_not_be_read_is_said_once(people, caplog):
    url = people.url("looker", "people", "&application_name=twice")
    with caplog.at_level(logging.WARNING, "distilsql"):
        open_database(url)
        open_database(url)
    assert caplog.text.count("may not read") == 1


def test_the_schemas_that_have_tables_are_named_as_they_have_to_be_written(people):
    people.run("people", 'CREATE SCHEMA "Odd, one"', 'CREATE TABLE "Odd, one".thing (id int)')
    people.run("people", 'GRANT USAGE ON SCHEMA "Odd, one" TO looker')
    people.run("people", 'GRANT SELECT ON "Odd, one".thing TO looker')
    try:
        with pytest.raises(DataError, match=r"\?search_path=\S+") as caught:
            open_database(people.url("looker", "people", "&search_path=nowhere"))
        advised = str(caught.value).split("?search_path=")[1].split(" behind")[0]
        assert advised == '"Odd, one",past,public,sales'
        tables = open_database(people.url("looker", "people", f"&search_path={advised}")).schema.tables
        assert "thing" in {table.name for table in tables}
    finally:
        people.run("people", 'DROP SCHEMA "Odd, one" CASCADE')


def test_a_schema_without_tables_names_those_that_have_some(people):
    with pytest.raises(DataError, match=r"no table.*search_path=past,public,sales"):
        open_database(people.url("looker", "people", "&search_path=nowhere"))


def test_samples_and_values_of_postgresql(people, tmp_path):
    database = open_database(people.url("looker", "people"))
    samples = sample_values(database.path, database.schema, 2)
    assert samples["country", "Name"] == ("France", "Spain")
    assert samples["person", "mood"] == ("glad", "sad")
    assert samples["person", "tags"] == ('["a b", "c"]',)
    assert samples["measured", "v"] == ()
    found = matched_values(database.path, "Who is glad and tall in France?", cache_folder=tmp_path)
    assert found == {
        ("country", "Name"): ("France",),
        ("person", "mood"): ("glad",),
        ("person", "note"): ("tall",),
    }
    assert not any("p@ss" in path.name + path.read_text() for path in tmp_path.rglob("values.json"))


def test_a_schema_cut_down_reads_no_table_again(people, monkeypatch):
    """A prompt is fitted by trying one cut after another."""
    read = []
    monkeypatch.setattr(
        cells, "read", lambda url, sql, **limits: read.append(sql) or real(url, sql, **limits)
    )
    database = open_database(people.url("looker", "people", "&application_name=cut"))
    samples = sample_values(database.path, database.schema, 2)
    assert len(read) == len(database.schema.tables)
    assert sample_values(database.path, restrict(database.schema, {("person", "mood")}), 2) == {
        ("person", "mood"): samples["person", "mood"]
    }
    assert len(read) == len(database.schema.tables)
    (table,) = [table for table in database.schema.tables if table.name == "country"]
    code = replace(table, columns=table.columns[:1])
    assert len(sample_values(database.path, Schema((code,)), 3)) == 1
    assert sample_values(database.path, Schema((table,)), 3)["country", "Name"] == ("France", "Spain")
    assert "Name" in read[-1]
    assert "code" not in read[-1], "that column had been read"


def test_a_servers_index_is_built_once_a_day(people, tmp_path, monkeypatch):
    url = place_of(people.url("looker", "people"))
    index = load_value_index(url, tmp_path)
    people.run("people", "INSERT INTO country VALUES ('IT', 'Italy')")
    assert load_value_index(url, tmp_path) is index
    folders = set(tmp_path.iterdir())

    class Tomorrow:
        @staticmethod
        def now(zone):
            from datetime import datetime, timedelta

            return datetime.now(zone) + timedelta(days=1)

    monkeypatch.setattr("distilsql.databases.file_cache.datetime", Tomorrow)
    assert "Italy" in load_value_index(url, tmp_path).values
    assert "Italy" not in index.values
    assert len(set(tmp_path.iterdir())) == 1
    assert not folders & set(tmp_path.iterdir())


@pytest.fixture(scope="module")
def large(postgresql_server):
    """A table whose rows differ from each other behind the first ones alone."""
    postgresql_server.run("postgres", "CREATE DATABASE large")
    postgresql_server.run(
        "large",
        "CREATE TABLE event (id int, kind text, late text)",
        "INSERT INTO event SELECT n, CASE WHEN n < 50000 THEN 'first' ELSE 'second' END, "
        "CASE WHEN n > 60000 THEN 'very late' END FROM generate_series(1, 100000) AS n",
        "ANALYZE event",
    )
    yield place_of(postgresql_server.url("owner", "large"))
    postgresql_server.run("postgres", "DROP DATABASE large WITH (FORCE)")


def test_a_large_table_is_not_scanned(large, monkeypatch, tmp_path):
    monkeypatch.setattr(cells, "READ_ROWS", 1_000)
    read = []
    monkeypatch.setattr(
        cells, "read", lambda url, sql, **limits: read.append(sql) or real(url, sql, **limits)
    )
    database = open_database(large)
    samples = sample_values(large, database.schema, 2)
    assert samples == {("event", "id"): ("1", "2"), ("event", "kind"): ("first",), ("event", "late"): ()}
    index = load_value_index(large, tmp_path)
    assert set(index.values) == {"first", "second", "very late"}, "the statistics know the rest"
    of_tables = [sql for sql in read if "pg_stats" not in sql]
    assert of_tables
    for sql in of_tables:
        plan = "\n".join(str(row[0]) for row in execute_plan(large, sql))
        assert "Limit" in plan
        scanned = [line for line in plan.split("\n") if "Seq Scan" in line]
        assert scanned
        for line in scanned:
            rows = int(line.split("actual rows=")[1].split()[0])
            assert rows <= 1_001, plan


real = cells.read


def execute_plan(url, sql):
    import psycopg

    parts = dict(url.query)
    with psycopg.connect(
        host=parts["host"], user="owner", password=PASSWORD, dbname="large", autocommit=True
    ) as connection:
        return connection.execute(f"EXPLAIN (ANALYZE, TIMING off) {sql}").fetchall()


def test_mariadbs_catalogue(mariadb_server, caplog, tmp_path):
    mariadb_server.run(
        "mysql", "CREATE DATABASE people", f"CREATE USER looker@localhost IDENTIFIED BY '{PASSWORD}'"
    )
    try:
        mariadb_server.run(
            "people",
            "CREATE TABLE Country (code char(2) PRIMARY KEY, name text) COMMENT 'where people live'",
            "CREATE TABLE person (id bigint unsigned AUTO_INCREMENT PRIMARY KEY, mood enum('glad', 'sad'), "
            "is_tall bool, country char(2) COMMENT 'of birth', note longtext, twice int AS (id * 2), "
            "`odd ``name` int, FOREIGN KEY (country) REFERENCES Country (code))",
            "CREATE TABLE closed (secret text)",
            "CREATE TABLE half (open int, shut text)",
            "CREATE TABLE going (a int)",
            "CREATE VIEW gone AS SELECT a FROM going",
            "DROP TABLE going",
            "CREATE VIEW glad AS SELECT id FROM person WHERE mood = 'glad'",
            "INSERT INTO Country VALUES ('FR', 'France')",
            "INSERT INTO person (mood, is_tall, country) VALUES ('glad', true, 'FR')",
            *(
                f"GRANT SELECT ON people.{name} TO looker@localhost"
                for name in ("Country", "person", "glad", "gone")
            ),
            "GRANT SELECT (open) ON people.half TO looker@localhost",
        )
        with caplog.at_level(logging.WARNING, "distilsql"):
            database = open_database(mariadb_server.url("looker", "people"))
        tables = {table.name: table for table in database.schema.tables}
        assert list(tables) == ["Country", "half", "person", "glad"]
        assert columns(tables["half"]) == {"open": "int"}
        assert (columns(tables["glad"]), tables["glad"].is_view) == ({"id": "bigint unsigned"}, True)
        assert tables["Country"].comment == "where people live"
        assert columns(tables["person"]) == {
            "id": "bigint unsigned",
            "mood": "enum('glad', 'sad')",
            "is_tall": "boolean",
            "country": "char(2)",
            "note": "longtext",
            "twice": "int",
            "odd `name": "int",
        }
        assert tables["person"].columns[3].comment == "of birth"
        assert database.schema.foreign_keys == (ForeignKey("person", "country", "Country", "code"),)
        assert not caplog.text
        assert name_in("odd `name", "mysql") == "`odd ``name`"
        assert sample_values(database.path, database.schema, 2)["person", "mood"] == ("glad",)
        found = matched_values(database.path, "glad in France", cache_folder=tmp_path)
        assert found == {("Country", "name"): ("France",), ("person", "mood"): ("glad",)}
    finally:
        mariadb_server.run("mysql", "DROP DATABASE people", "DROP USER looker@localhost")


@pytest.fixture
def duckdb_file(tmp_path):
    return tmp_path / "people.duckdb"


def write_duckdb(file, *statements):
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    with duckdb.connect(str(file)) as connection:
        for statement in statements:
            connection.execute(statement)
    return place_of(str(file))


def test_duckdbs_catalogue(duckdb_file, tmp_path):
    place = write_duckdb(
        duckdb_file,
        "CREATE TABLE country (code varchar PRIMARY KEY)",
        "CREATE TABLE person (id int, line int, tags varchar[], country varchar REFERENCES country (code), "
        "boss_id int, boss_line int, PRIMARY KEY (id, line), "
        "FOREIGN KEY (boss_id, boss_line) REFERENCES person (id, line))",
        "COMMENT ON TABLE person IS 'somebody'",
        "COMMENT ON COLUMN person.tags IS 'what is said'",
        "CREATE VIEW everybody AS SELECT id FROM person",
        "CREATE SCHEMA sales",
        "CREATE TABLE sales.deal (amount double)",
        "INSERT INTO country VALUES ('France')",
    )
    schema = open_database(place).schema
    assert [table.name for table in schema.tables] == ["country", "person", "everybody"]
    assert schema.tables[1].comment == "somebody"
    assert schema.tables[1].columns[2].comment == "what is said"
    assert columns(schema.tables[1])["tags"] == "text[]"
    assert set(schema.foreign_keys) == {
        ForeignKey("person", "country", "country", "code"),
        ForeignKey("person", "boss_id", "person", "id"),
        ForeignKey("person", "boss_line", "person", "line"),
    }
    both = open_database(f"duckdb:///{duckdb_file}?search_path=main,sales")
    assert "deal" in [table.name for table in both.schema.tables]
    assert execute(both.path, "SELECT count(*) FROM deal").rows == ((0,),)
    assert matched_values(place, "from France", cache_folder=tmp_path / "c") == {
        ("country", "code"): ("France",)
    }


def test_a_changed_duckdb_file_has_another_index(duckdb_file, tmp_path):
    place = write_duckdb(duckdb_file, "CREATE TABLE t (c varchar)", "INSERT INTO t VALUES ('red')")
    assert load_value_index(place, tmp_path / "c").values == ("red",)
    write_duckdb(duckdb_file, "INSERT INTO t VALUES ('green')")
    assert load_value_index(place, tmp_path / "c").values == ("green", "red")


def test_databases_without_tables_or_rows(duckdb_file, postgresql_server):
    place = write_duckdb(duckdb_file, "SELECT 1")
    with pytest.raises(DataError, match=r"no table.*check the URL"):
        open_database(place)
    write_duckdb(duckdb_file, "CREATE TABLE t (c varchar)")
    assert sample_values(place, open_database(place).schema, 2) == {("t", "c"): ()}
    postgresql_server.run("postgres", "CREATE DATABASE nothing")
    with pytest.raises(DataError, match="no table"):
        open_database(postgresql_server.url("owner", "nothing"))
    postgresql_server.run("postgres", "DROP DATABASE nothing WITH (FORCE)")


def test_what_is_not_there(duckdb_file, postgresql_server, mariadb_server, tmp_path):
    for url, said in (
        (f"duckdb:///{duckdb_file}", "no database file"),
        (postgresql_server.url("owner", "absent"), "check that the server runs"),
        (mariadb_server.url("owner", "absent"), "check that the server runs"),
        (mariadb_server.url("nobody", "mysql"), "check that the server runs"),
        (f"postgresql://u:p@ss@/d?host={tmp_path}", "check that the server runs"),
    ):
        with pytest.raises(DatabaseUnavailable, match=said) as caught:
            open_database(url)
        assert "p@ss" not in str(caught.value)
    (tmp_path / "text.duckdb").write_text("no database at all" * 1000)
    with pytest.raises(DatabaseUnavailable, match="DuckDB database"):
        open_database(str(tmp_path / "text.duckdb"))


def test_a_server_that_goes_away_in_the_middle(postgresql_server, mariadb_server):
    """The connection is cut by another session while a query runs: no query's fault."""
    import threading

    postgresql = postgresql_server.url("owner", "postgres")
    mariadb = mariadb_server.url("owner", "mysql")
    for server, url, database, find, kill in (
        (
            postgresql_server,
            postgresql,
            "postgres",
            "SELECT pid FROM pg_stat_activity WHERE query LIKE 'FETCH%' AND state = 'active' "
            "AND pid <> pg_backend_pid()",
            "SELECT pg_terminate_backend({})",
        ),
        (
            mariadb_server,
            mariadb,
            "mysql",
            "SELECT id FROM information_schema.processlist WHERE info LIKE '%sleep(77)%' AND id <> connection_id()",
            "KILL CONNECTION {}",
        ),
    ):
        sleep = "pg_sleep(77)" if database == "postgres" else "sleep(77)"
        answers = []
        asking = threading.Thread(target=lambda: answers.append(execute(url, f"SELECT {sleep}")))  # noqa: B023
        asking.start()
        found = ()
        while asking.is_alive() and not found:
            found = execute(url, find).rows
        server.run(database, kill.format(found[0][0]))
        asking.join()
        assert answers[0].outcome is Outcome.UNAVAILABLE, answers
        with pytest.raises(DatabaseUnavailable, match="not a query"):
            require_available(answers[0], place_of(url), "the gold query of x ran")


@pytest.mark.parametrize(
    ("declared", "engine", "said"),
    [
        ("INTEGER(11)", "mysql", "int"),
        ("TINYINT(1)", "mysql", "boolean"),
        ("VARCHAR(20)", "mysql", "varchar(20)"),
        ("VARCHAR", "duckdb", "text"),
        ("DOUBLE PRECISION", "postgresql", "double precision"),
        ("citext_of_ours", "postgresql", "citext_of_ours"),
        ("", "postgresql", "text"),
    ],
)
def test_types(declared, engine, said):
    assert common_type(declared, engine) == said


@pytest.mark.parametrize(
    ("name", "engine", "written"),
    [
        ("order", "postgresql", '"order"'),
        ("order", "mysql", "`order`"),
        ("rank", "mysql", "`rank`"),
        ("pivot", "duckdb", '"pivot"'),
        ("CustomerId", "postgresql", '"CustomerId"'),
        ("CustomerId", "mysql", "CustomerId"),
        ("CustomerId", "duckdb", "CustomerId"),
        ('say "hi"', "postgresql", '"say ""hi"""'),
        ("2nd", "mysql", "`2nd`"),
        ("größe", "postgresql", '"größe"'),
        ("name", "postgresql", "name"),
    ],
)
def test_names(name, engine, written):
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("duckdb")
    assert name_in(name, engine) == written
