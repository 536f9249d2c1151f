"""The process that talks to PostgreSQL, MySQL or DuckDB through SQLAlchemy; the same frames as SQLite's.

Every job gets a connection of its own, so that no setting, lock or temporary table outlives it; a read-only
transaction, a limit on the statement's time that the server itself keeps, one statement, a cursor that fetches
at most the cap, and a rollback. A process of its own bounds the memory a result can take here.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any

from sqlalchemy import URL, Connection, create_engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from distilsql.databases.worker_process import serve

CONNECT_TIMEOUT_S = 5
UNLIMITED_ROWS = 2**31 - 2
# Roles of PostgreSQL that reach beyond the database's own tables.
POWERS = ("pg_read_server_files", "pg_write_server_files", "pg_execute_server_program")
POSTGRESQL_TIMEOUT = "57014"
POSTGRESQL_DENIED = ("42501", "25006")
# Classes of states: connection, resources, the operator's hand, the system, a damaged file, an internal error.
POSTGRESQL_TROUBLE = ("08", "53", "57", "58", "F0", "XX")
POSTGRESQL_LOCKED = ("40P01", "55P03")
MYSQL_TIMEOUT = (1969, 3024)
# Too many connections, a full or failing disk, a lock not had in time, a deadlock, a damaged table, a lost server.
MYSQL_TROUBLE = (1021, 1030, 1034, 1040, 1053, 1194, 1195, 1205, 1213, 2002, 2003, 2006, 2013)
MYSQL_DENIED = (1044, 1142, 1143, 1227, 1290, 1792)


class Denied(Exception):
    """The connection may do more than read, or the statement is not a query."""


@dataclass(frozen=True)
class Dialect:
    """What differs between servers. `fetch` runs one statement and gives column names and at most `count` rows."""

    connect_args: Callable[[dict[str, Any]], dict[str, Any]]
    prepare: Callable[[Connection, dict[str, Any]], None]
    fetch: Callable[[Any, str, int], tuple[list[str], list[Any]]]
    interrupt: Callable[[Any], Any]
    classify: Callable[[BaseException], str]


def run(job: dict[str, Any]) -> dict[str, Any]:
    """One job to one answer; whatever goes wrong is an outcome."""
    started = time.perf_counter()
    is_late = threading.Event()
    try:
        answer = _query(job, is_late)
    except MemoryError:
        answer = {"outcome": "TOO_LARGE", "message": "the result needed more memory than its limit"}
    except Denied as error:
        answer = {"outcome": "DENIED", "message": str(error)}
    except (SQLAlchemyError, ArgumentError, NoSuchModuleError, ImportError) as error:
        answer = {"outcome": "UNAVAILABLE", "message": f"cannot connect: {error}"}
    except Exception as error:  # the drivers share no base class
        outcome = "TIMEOUT" if is_late.is_set() else _dialect(make_url(job["path"])).classify(error)
        answer = {"outcome": outcome, "message": str(error).strip()}
    answer["seconds"] = time.perf_counter() - started
    return answer


def _query(job: dict[str, Any], is_late: threading.Event) -> dict[str, Any]:
    cap = job["max_rows"]
    count = UNLIMITED_ROWS if cap is None else cap + 1
    url = make_url(job["path"])
    dialect = _dialect(url)
    engine = create_engine(url, poolclass=NullPool, connect_args=dialect.connect_args(job))
    with engine.connect() as connection:
        dialect.prepare(connection, job)
        driver = connection.connection.driver_connection
        try:
            with _interrupted_after(job["timeout_s"], lambda: dialect.interrupt(driver), is_late):
                columns, rows = dialect.fetch(driver, job["sql"], count)
        finally:
            connection.rollback()
    plain = [[_plain(cell) for cell in row] for row in rows]
    if cap is not None and len(plain) > cap:
        message = f"more than {cap} rows"
        return {"outcome": "TOO_MANY_ROWS", "columns": columns, "rows": plain[:cap], "message": message}
    return {"outcome": "ROWS", "columns": columns, "rows": plain}


@contextmanager
def _interrupted_after(
    timeout_s: float, interrupt: Callable[[], Any], is_late: threading.Event
) -> Iterator[None]:
    def stop() -> None:
        is_late.set()
        interrupt()

    timer = threading.Timer(timeout_s, stop)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _plain(cell: Any) -> Any:
    """A cell as JSON has it. Numbers of fixed point become floats, dates ISO text, anything else its text."""
    if cell is None or isinstance(cell, bool | int | float | str | bytes):
        return cell
    if isinstance(cell, Decimal):
        return int(cell) if cell == cell.to_integral_value() else float(cell)
    if isinstance(cell, date | time_of_day):
        return cell.isoformat(*([" "] if hasattr(cell, "hour") and hasattr(cell, "year") else []))
    if isinstance(cell, memoryview | bytearray):
        return bytes(cell)
    return str(cell.total_seconds()) if isinstance(cell, timedelta) else str(cell)


def _postgresql_args(job: dict[str, Any]) -> dict[str, Any]:
    milliseconds = max(1, int(1000 * job["timeout_s"]))
    settings = {
        "default_transaction_read_only": "on",
        "statement_timeout": milliseconds,
        "lock_timeout": milliseconds,
        "idle_in_transaction_session_timeout": 2 * milliseconds,
    }
    # Options of the user's own, such as a search_path, come first: of two settings the later counts.
    own = make_url(job["path"]).query.get("options", ())
    options = [own] if isinstance(own, str) else [*own]
    options += [f"-c {name}={value}" for name, value in settings.items()]
    return {"options": " ".join(options), "connect_timeout": CONNECT_TIMEOUT_S}


def _postgresql_prepare(connection: Connection, job: dict[str, Any]) -> None:
    if job["mode"] != "serving":
        return
    roles = ", ".join(f"pg_has_role('{power}', 'member')" for power in POWERS)
    found = connection.exec_driver_sql(
        f"SELECT rolname, rolsuper, {roles} FROM pg_roles WHERE rolname = current_user"
    )
    role, *powers = found.one()
    if any(powers):
        raise Denied(
            f"the role {role} can reach files or programs of the server; connect as one that can only SELECT"
        )


def _postgresql_fetch(driver: Any, sql: str, count: int) -> tuple[list[str], list[Any]]:
    """A named cursor: DECLARE takes exactly one SELECT, and the one FETCH is the one statement with a clock."""
    with driver.cursor(name="distilsql") as cursor:
        cursor.execute(sql)
        columns = [column.name for column in cursor.description or ()]
        return columns, cursor.fetchmany(count)


def _postgresql_outcome(error: BaseException) -> str:
    state = getattr(error, "sqlstate", None)
    if state == POSTGRESQL_TIMEOUT:
        return "TIMEOUT"
    if state in POSTGRESQL_LOCKED or (state or "").startswith(POSTGRESQL_TROUBLE):
        return "UNAVAILABLE"
    return "DENIED" if state in POSTGRESQL_DENIED else "SQL_ERROR"


def _mysql_args(job: dict[str, Any]) -> dict[str, Any]:
    return {"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": job["timeout_s"] + 1, "local_infile": False}


def _mysql_prepare(connection: Connection, job: dict[str, Any]) -> None:
    (version,) = connection.exec_driver_sql("SELECT VERSION()").one()
    connection.rollback()
    milliseconds = max(1, int(1000 * job["timeout_s"]))
    limit = f"max_execution_time = {milliseconds}"
    if "mariadb" in version.lower():
        limit = f"max_statement_time = {milliseconds / 1000}"
    connection.exec_driver_sql(f"SET SESSION {limit}")
    connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
    connection.rollback()
    connection.exec_driver_sql("START TRANSACTION READ ONLY")


def _mysql_fetch(driver: Any, sql: str, count: int) -> tuple[list[str], list[Any]]:
    """Unbuffered; the driver's protocol takes one statement unless told otherwise."""
    from pymysql.cursors import SSCursor

    cursor = driver.cursor(SSCursor)
    cursor.execute(sql)
    columns = [column[0] for column in cursor.description or ()]
    return columns, list(cursor.fetchmany(count))


def _mysql_outcome(error: BaseException) -> str:
    number = error.args[0] if error.args else None
    if number in MYSQL_TIMEOUT:
        return "TIMEOUT"
    if number in MYSQL_TROUBLE:
        return "UNAVAILABLE"
    return "DENIED" if number in MYSQL_DENIED else "SQL_ERROR"


def _duckdb_args(job: dict[str, Any]) -> dict[str, Any]:
    config = {
        "enable_external_access": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "memory_limit": f"{job['memory_bytes'] // 2}B",
        "threads": 1,
        "temp_directory": "",
        "lock_configuration": "true",
    }
    return {"read_only": True, "config": config}


def _duckdb_fetch(driver: Any, sql: str, count: int) -> tuple[list[str], list[Any]]:
    import duckdb

    statements = driver.extract_statements(sql)
    if len(statements) != 1:
        raise duckdb.ParserException("You can only execute one statement at a time.")
    if statements[0].type != duckdb.StatementType.SELECT:
        raise Denied(f"only queries are run, this is {statements[0].type.name}")
    cursor = driver.execute(statements[0])
    return [column[0] for column in cursor.description or ()], cursor.fetchmany(count)


def _duckdb_outcome(error: BaseException) -> str:
    import duckdb

    if isinstance(error, duckdb.PermissionException) or "disabled by configuration" in str(error):
        return "DENIED"
    if isinstance(error, duckdb.InterruptException):
        return "TIMEOUT"
    if isinstance(error, duckdb.IOException | duckdb.InternalException | duckdb.FatalException):
        return "UNAVAILABLE"
    return "TOO_LARGE" if isinstance(error, duckdb.OutOfMemoryException) else "SQL_ERROR"


DIALECTS = {
    "postgresql": Dialect(
        _postgresql_args,
        _postgresql_prepare,
        _postgresql_fetch,
        lambda driver: driver.cancel(),
        _postgresql_outcome,
    ),
    "mysql": Dialect(
        _mysql_args, _mysql_prepare, _mysql_fetch, lambda driver: driver._force_close(), _mysql_outcome
    ),
    "duckdb": Dialect(
        _duckdb_args,
        lambda connection, job: None,
        _duckdb_fetch,
        lambda driver: driver.interrupt(),
        _duckdb_outcome,
    ),
}


def _dialect(url: URL) -> Dialect:
    name = url.get_backend_name().replace("mariadb", "mysql")
    if name not in DIALECTS:
        known = ", ".join(DIALECTS)
        raise Denied(f"nobody knows here how to hold {name} to reading; use {known} or a SQLite file")
    return DIALECTS[name]


def main(parent_id: int, memory_bytes: int, driver_name: str) -> None:
    """The driver is loaded before the memory limit is set, and before any clock runs."""
    with suppress(NoSuchModuleError, ImportError):  # the first job says so
        URL.create(driver_name).get_dialect().import_dbapi()
    serve(parent_id, memory_bytes, run)
