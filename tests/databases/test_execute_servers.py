"""The same interface on PostgreSQL, MariaDB and DuckDB: honest queries, and attacks. Each needs its driver, and a
server its programs (see `servers`)."""

import json
from pathlib import Path

import pytest

from distilsql.cli.answering import asked_of
from distilsql.data.golds import is_held_up
from distilsql.databases.execute import execute, refuse_powers
from distilsql.databases.job import MIB, Outcome, make_job
from distilsql.databases.pool import ExecutionPool
from distilsql.databases.url import place_of
from distilsql.errors import DataError
from servers import PASSWORD

ATTACKS = json.loads(Path(__file__).with_name("attacks_servers.json").read_text())
TIMEOUT_S = 0.5
OVERTIME_S = 20.0  # on a busy machine; what is not stopped takes minutes, or for ever
PATIENT_S = 20.0  # for what has to answer on a busy machine too
MEMORY_BYTES = 256 * MIB
SINGERS = (
    "CREATE TABLE singer (id int PRIMARY KEY, name varchar(20), age int, born date, fee decimal(8, 2))",
    "INSERT INTO singer VALUES (1, 'Joe', 52, '1970-01-02', 10.50), (2, 'Ann', 32, NULL, 3)",
)
SECRET = ("CREATE TABLE secret (word text)", "INSERT INTO secret VALUES ('the secret word')")
# With the rights of the owner, who may write: what a careless administrator leaves for all to call.
FUNCTIONS = {
    "writes": "INSERT INTO trace VALUES (1)",
    "writes_at_once": "INSERT INTO trace_at_once VALUES (1)",
    "makes_temporary": "CREATE TEMPORARY TABLE loot (a int)",
    "counts": "SET @moved = NEXTVAL(numbers)",
    "unlimits": "SET SESSION max_statement_time = 0",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    (folder / "secret.txt").write_text("the secret word")
    (folder / "secret.csv").write_text("word\nthe secret word\n")
    return folder


@pytest.fixture(scope="module")
def postgresql(postgresql_server):
    """A function from role to URL."""
    postgresql_server.run("postgres", "CREATE DATABASE singers")
    reader = (f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'", "GRANT SELECT ON singer TO reader")
    made = [
        "CREATE TABLE trace (a int)",
        "CREATE SEQUENCE numbers",
        "GRANT ALL ON SEQUENCE numbers TO reader",
        *(
            f"CREATE FUNCTION {name}() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS "
            f"$$ BEGIN {body}INSERT INTO trace VALUES (1); RETURN 1; END $$"
            for name, body in (("writes", ""), ("writes_again", "SET LOCAL transaction_read_only = off; "))
        ),
    ]
    postgresql_server.run("singers", *SINGERS, *reader, *SECRET, *made)
    yield lambda role, more="": postgresql_server.url(role, "singers", more)
    left = execute(postgresql_server.url("owner", "singers"), "SELECT count(*) FROM pg_largeobject_metadata")
    assert left.rows == ((0,),)
    postgresql_server.run("postgres", "DROP DATABASE singers WITH (FORCE)", "DROP ROLE reader")


@pytest.fixture(scope="module")
def mariadb(mariadb_server):
    """A function from user to URL."""
    mariadb_server.run("mysql", "CREATE DATABASE singers")
    made = [
        "CREATE TABLE trace (a int)",
        "CREATE TABLE trace_at_once (a int) ENGINE = MyISAM",
        "CREATE SEQUENCE numbers",
        "CREATE PROCEDURE empties() BEGIN COMMIT; DELETE FROM singer; COMMIT; END",
        f"CREATE USER reader@localhost IDENTIFIED BY '{PASSWORD}'",
        "GRANT SELECT ON singers.singer TO reader@localhost",
        "GRANT EXECUTE ON singers.* TO reader@localhost",
    ]
    for name, body in FUNCTIONS.items():
        made.append(f"CREATE FUNCTION {name}() RETURNS int BEGIN {body}; RETURN 1; END")
    # A careless administrator again: sequences of this kind are known to need more than SELECT to move on.
    made.append("GRANT SELECT, INSERT ON singers.numbers TO reader@localhost")
    mariadb_server.run("singers", *SINGERS, *SECRET, *made)
    yield lambda user: mariadb_server.url(user, "singers")
    mariadb_server.run("mysql", "DROP DATABASE singers", "DROP USER reader@localhost")


@pytest.fixture(scope="module")
def duckdb_url(folder):
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    path = folder / "singers.duckdb"
    with duckdb.connect(str(path)) as connection:
        for statement in SINGERS:
            connection.execute(statement)
    return f"duckdb:///{path}"


@pytest.fixture(scope="module")
def pool():
    with ExecutionPool(workers=1) as pool:
        yield pool


ENGINES = ("postgresql", "mysql", "duckdb")


def url_of(engine, request):
    if engine == "duckdb":
        return request.getfixturevalue("duckdb_url")
    return request.getfixturevalue({"mysql": "mariadb"}.get(engine, engine))("reader")


@pytest.fixture(params=ENGINES)
def url(request):
    """Of the two singers."""
    return url_of(request.param, request)


def job(url, sql, **limits):
    settings = {"mode": "serving", "timeout_s": PATIENT_S, "memory_bytes": MEMORY_BYTES} | limits
    return make_job(url, sql, **settings)


def test_honest_queries(url, pool):
    execution = pool.run(job(url, "SELECT * FROM singer ORDER BY id"))
    assert execution.outcome is Outcome.ROWS, execution
    assert execution.columns == ("id", "name", "age", "born", "fee")
    assert execution.rows == ((1, "Joe", 52, "1970-01-02", 10.5), (2, "Ann", 32, None, 3))
    for mode in ("serving", "evaluation"):
        count = pool.run(
            job(url, "WITH old AS (SELECT * FROM singer WHERE age > 40) SELECT count(*) FROM old", mode=mode)
        )
        assert count.rows == ((1,),)
    assert pool.run(job(url, "SELECT id FROM singer", max_rows=1)).outcome is Outcome.TOO_MANY_ROWS
    assert pool.run(job(url, "SELECT absent FROM singer")).outcome is Outcome.SQL_ERROR
    assert pool.run(job(url, "SELECT id FROM singer WHERE id > 5")).outcome is Outcome.ROWS


@pytest.mark.parametrize(
    "sql",
    [
        "-- the singers\nSELECT count(*) FROM singer",
        "/* the singers */ (SELECT count(*) FROM singer)",
        "SELECT count(*) /* all of them */ FROM singer -- and no more",
        "SELECT count(*) FROM singer;",
        "WITH s AS (SELECT 1 FROM singer) SELECT count(*) FROM s",
    ],
)
def test_honest_queries_with_comments(url, pool, sql):
    for mode in ("serving", "evaluation"):
        assert pool.run(job(url, sql, mode=mode)).rows == ((2,),)


def takes_long(attack) -> bool:
    """Those that are stopped by the clock, but one."""
    return "TIMEOUT" in attack["serving"] and attack["name"] != "endless recursion"


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(
            attack,
            id=f"{attack['database']}: {attack['name']}",
            marks=[pytest.mark.slow] if takes_long(attack) else [],
        )
        for attack in ATTACKS
    ],
)
@pytest.mark.parametrize("mode", ["serving", pytest.param("evaluation", marks=pytest.mark.slow)])
def test_attack(attack, mode, folder, pool, request):
    url = url_of(attack["database"], request)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    timeout_s = TIMEOUT_S if "TIMEOUT" in attack["serving"] else PATIENT_S
    sql = attack["sql"].replace("{folder}", str(folder))
    limits = {} if mode == "serving" else {"max_rows": 1000}
    execution = pool.run(job(url, sql, timeout_s=timeout_s, mode=mode, **limits))
    if mode == "serving":
        assert execution.outcome.name in attack["serving"], execution
    assert execution.seconds < timeout_s + OVERTIME_S
    assert "secret word" not in repr(execution.rows)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    after = pool.run(job(url, "SELECT count(*) FROM singer"))
    assert after.rows == ((2,),), after


@pytest.mark.parametrize("engine", ENGINES)
def test_an_error_is_told_in_the_databases_words_about_the_persons_sql(engine, request, pool):
    url = url_of(engine, request)
    failed = pool.run(job(url, "SELECT nme FROM singer"))
    assert failed.outcome is Outcome.SQL_ERROR
    assert "nme" in failed.message
    write = pool.run(job(url, "DELETE FROM singer"))
    assert "only" in write.message
    assert "quer" in write.message
    for message in (failed.message, write.message):
        assert "DECLARE" not in message
        assert not message.startswith("(")


@pytest.mark.parametrize("mode", ["serving", "evaluation"])
def test_functions_leave_nothing_behind(mariadb, pool, mode):
    """With the owner's eyes: what the functions would have written."""
    for name in FUNCTIONS:
        for user in ("reader", "owner"):
            pool.run(job(mariadb(user), f"SELECT {name}()", mode=mode, timeout_s=TIMEOUT_S))
    for table in ("trace", "trace_at_once"):
        found = execute(mariadb("owner"), f"SELECT count(*) FROM {table}")
        assert found.rows == ((0,),), table
    unmoved = execute(mariadb("owner"), "SELECT next_not_cached_value FROM numbers")
    assert unmoved.rows == ((1,),)


def test_an_owner_cannot_reach_the_servers_files(mariadb, mariadb_server, pool):
    made = mariadb_server.folder / "made.txt"
    for sql in (f"SELECT 1 INTO OUTFILE '{made}'", f"SELECT 1 INTO/**/DUMPFILE '{made}'"):
        assert pool.run(job(mariadb("owner"), sql, mode="evaluation")).outcome is Outcome.DENIED
    assert not made.exists()


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_even_an_owner_only_reads(engine, request, pool):
    url = request.getfixturevalue({"mysql": "mariadb"}.get(engine, engine))("owner")
    for sql in ("DELETE FROM singer", "DROP TABLE singer", "CREATE TABLE made (a int)"):
        assert pool.run(job(url, sql, mode="evaluation")).outcome in (Outcome.DENIED, Outcome.SQL_ERROR)
    assert pool.run(job(url, "SELECT count(*) FROM singer", mode="evaluation")).rows == ((2,),)


@pytest.mark.parametrize(("engine", "sleep"), [("postgresql", "pg_sleep"), ("mysql", "sleep")])
def test_a_time_out_at_a_server_is_the_querys_own(engine, sleep, request, pool):
    """What its processor did meanwhile is not to be known, so it is not run again with patience."""
    late = pool.run(job(url_of(engine, request), f"SELECT {sleep}(100)", timeout_s=TIMEOUT_S))
    assert late.outcome is Outcome.TIMEOUT
    assert not is_held_up(late, TIMEOUT_S)


def test_the_urls_own_options_are_kept_and_cannot_undo_ours(postgresql, pool):
    options = "-csearch_path%3Dinformation_schema%20-cdefault_transaction_read_only%3Doff"
    url = postgresql("reader", f"&options={options}")
    assert pool.run(job(url, "SELECT current_setting('search_path')")).rows == (("information_schema",),)
    assert pool.run(job(url, "SELECT current_setting('transaction_read_only')")).rows == (("on",),)


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_a_user_with_powers_is_refused_for_serving(engine, request, pool):
    url = request.getfixturevalue({"mysql": "mariadb"}.get(engine, engine))("owner")
    refused = pool.run(job(url, "SELECT 1"))
    assert refused.outcome is Outcome.DENIED
    assert "only SELECT" in refused.message


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_a_password_that_is_wrong_is_named_and_not_shown(engine, request):
    right = request.getfixturevalue({"mysql": "mariadb"}.get(engine, engine))("reader")
    wrong = right.replace(":p@ss:", ":tiger@1:")
    refused = execute(wrong, "SELECT 1")
    assert refused.outcome is Outcome.UNAVAILABLE
    assert "reader" in refused.message
    assert "tiger" not in repr(refused)


def test_a_server_that_is_not_there(pool, tmp_path):
    for url in (
        f"postgresql://nobody@/none?host={tmp_path}",
        f"mysql://nobody@/none?unix_socket={tmp_path}/socket",
    ):
        absent = pool.run(job(url, "SELECT 1"))
        assert absent.outcome is Outcome.UNAVAILABLE
        assert "cannot connect" in absent.message


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_who_may_do_more_than_read_is_refused_before_a_model_is_loaded(engine, request):
    url = request.getfixturevalue(engine)
    refuse_powers(place_of(url("reader")))
    with pytest.raises(DataError, match="connect as one that can only SELECT") as caught:
        asked_of("demo:no-such-model", url("owner"))
    assert PASSWORD not in str(caught.value)
