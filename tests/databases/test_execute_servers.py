"""The same interface on PostgreSQL and DuckDB: honest queries, and attacks. Each needs its driver; PostgreSQL also
its programs (Debian: `apt-get install postgresql`), from which a temporary server is started."""

import json
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from distilsql.databases.execute import MIB, Outcome, make_job
from distilsql.databases.pool import ExecutionPool

pytest.importorskip("sqlalchemy", reason="server databases need `pip install 'distilsql[sql]'`")

ATTACKS = json.loads(Path(__file__).with_name("attacks_servers.json").read_text())
TIMEOUT_S = 0.5
OVERTIME_S = 20.0  # on a busy machine; what is not stopped takes minutes, or for ever
PATIENT_S = 20.0  # for what has to answer on a busy machine too
MEMORY_BYTES = 256 * MIB
SETUP = """
CREATE TABLE singer (id int PRIMARY KEY, name text, age int, born date, fee numeric(8, 2));
INSERT INTO singer VALUES (1, 'Joe', 52, '1970-01-02', 10.50), (2, 'Ann', 32, NULL, 3);
CREATE ROLE reader LOGIN;
GRANT SELECT ON singer TO reader;
CREATE TABLE secret (word text);
INSERT INTO secret VALUES ('the secret word');
"""


def postgresql_programs():
    """The folder of `initdb`, which Debian keeps off the PATH; None where PostgreSQL is not installed."""
    on_path = shutil.which("initdb")
    candidates = [Path(on_path).resolve()] if on_path else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    return candidates[0].parent if candidates else None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    (folder / "secret.txt").write_text("the secret word")
    (folder / "secret.csv").write_text("word\nthe secret word\n")
    return folder


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory):
    """A function from role to URL, on a temporary server that listens on a socket only."""
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed")
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: there is no initdb")
    # Not below pytest's own folder: that one is closed to the account that has to run the server.
    folder = Path(f"/tmp/distilsql-postgresql-{os.getpid()}")
    folder.mkdir(mode=0o755)
    account = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        account = pwd.getpwnam("postgres").pw_name
        shutil.chown(folder, account)

    def run(program, *arguments):
        command = [str(programs / program), *arguments]
        done = subprocess.run(command, user=account, capture_output=True, text=True, cwd="/", timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr

    cluster = str(folder / "cluster")
    try:
        run("initdb", "-D", cluster, "-U", "owner", "-A", "trust", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        run("pg_ctl", "-D", cluster, "-w", "-o", options, "-l", str(folder / "log"), "start")
        try:
            run(
                "psql",
                "-h",
                str(folder),
                "-U",
                "owner",
                "-d",
                "postgres",
                "-v",
                "ON_ERROR_STOP=1",
                "-c",
                SETUP,
            )
            yield lambda role: f"postgresql+psycopg://{role}@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-D", cluster, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def duckdb_url(folder):
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    pytest.importorskip("duckdb_engine", reason="DuckDB's SQLAlchemy dialect is not installed")
    path = folder / "singers.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "CREATE TABLE singer (id int, name varchar, age int, born date, fee decimal(8, 2))"
        )
        connection.execute(
            "INSERT INTO singer VALUES (1, 'Joe', 52, '1970-01-02', 10.50), (2, 'Ann', 32, NULL, 3)"
        )
    return f"duckdb:///{path}"


@pytest.fixture(scope="module")
def pool():
    with ExecutionPool(workers=1) as pool:
        yield pool


@pytest.fixture(params=["postgresql", "duckdb"])
def server(request):
    """(name, URL of the two singers)"""
    if request.param == "duckdb":
        return "duckdb", request.getfixturevalue("duckdb_url")
    return "postgresql", request.getfixturevalue("postgresql")("reader")


def job(url, sql, **limits):
    settings = {"mode": "serving", "timeout_s": PATIENT_S, "memory_bytes": MEMORY_BYTES} | limits
    return make_job(url, sql, **settings)


def test_honest_queries(server, pool):
    _, url = server
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
    "attack", ATTACKS, ids=[f"{attack['database']}: {attack['name']}" for attack in ATTACKS]
)
def test_attack(attack, folder, pool, request):
    if attack["database"] == "duckdb":
        url = request.getfixturevalue("duckdb_url")
    else:
        url = request.getfixturevalue("postgresql")("reader")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    timeout_s = TIMEOUT_S if "TIMEOUT" in attack["serving"] else PATIENT_S
    execution = pool.run(job(url, attack["sql"].replace("{folder}", str(folder)), timeout_s=timeout_s))
    assert execution.outcome.name in attack["serving"], execution
    assert execution.seconds < timeout_s + OVERTIME_S
    assert "secret word" not in repr(execution.rows)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    after = pool.run(job(url, "SELECT count(*) FROM singer"))
    assert after.rows == ((2,),), after


def test_the_urls_own_options_are_kept_and_cannot_undo_ours(postgresql, pool):
    options = "-csearch_path%3Dinformation_schema%20-cdefault_transaction_read_only%3Doff"
    url = f"{postgresql('reader')}&options={options}"
    assert pool.run(job(url, "SELECT current_setting('search_path')")).rows == (("information_schema",),)
    assert pool.run(job(url, "SELECT current_setting('transaction_read_only')")).rows == (("on",),)


def test_a_role_with_powers_is_refused_for_serving(postgresql, pool):
    refused = pool.run(job(postgresql("owner"), "SELECT 1"))
    assert refused.outcome is Outcome.DENIED
    assert "only SELECT" in refused.message


def test_a_server_that_is_not_there_and_a_dialect_nobody_knows(pool, tmp_path):
    absent = pool.run(job(f"postgresql+psycopg://nobody@/none?host={tmp_path}", "SELECT 1"))
    assert absent.outcome is Outcome.UNAVAILABLE
    assert "cannot connect" in absent.message
    assert pool.run(job("oracle://x", "SELECT 1")).outcome in (Outcome.DENIED, Outcome.SQL_ERROR)
