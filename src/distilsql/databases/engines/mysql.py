"""MySQL and MariaDB: a read-only transaction, a limit that the server keeps, and no statement but a query.

A read-only transaction is not enough here: MariaDB runs whole programs as one statement (BEGIN NOT ATOMIC …), which may
end it, does some work that is no writing to it (ANALYZE, FLUSH), and reads comments of a certain form as code. So what
does not begin as a query is not sent, nor what holds such a comment or names files of the server. The server's words
cannot be spelled otherwise, so this is no keyword filter that a clever text gets by.
"""

import re
import socket
from contextlib import suppress
from math import ceil
from typing import Any

import pymysql
from pymysql.cursors import SSCursor

from distilsql.databases.engines.driver import CONNECT_TIMEOUT_S, Denied, Driver, driver_arguments

DRIVER_NAME = "mysql+pymysql"
TIMEOUT = (1969, 3024)
# Too many connections, a full or failing disk, a lock not had in time, a deadlock, a damaged table, a lost server, one
# that shuts down.
TROUBLE = (1021, 1030, 1034, 1040, 1053, 1194, 1195, 1205, 1213, 1927, 2002, 2003, 2006, 2013)
DENIED = (1044, 1142, 1143, 1227, 1290, 1370, 1792)
# What reaches beyond tables: files of the server, and settings of it.
POWERS = ("FILE", "SUPER")
_BEFORE_STATEMENT = re.compile(r"(?:[\s(]|/\*.*?\*/|#[^\n]*|--(?=\s|\Z)[^\n]*)*", re.DOTALL)
_EXECUTABLE_COMMENT = re.compile(r"/\*M?!")
_QUERY = re.compile(r"(?:SELECT|WITH|VALUES|TABLE)\b", re.IGNORECASE)
# What a query can do to files of the server, if its user may.
_FILES = re.compile(r"\b(?:outfile|dumpfile|load_file)\b", re.IGNORECASE)
# SQLAlchemy's inspector reads SHOW CREATE TABLE, which needs more rights than SELECT for a view or half a table, and
# loses names with a back-tick in them.
TABLES = """
SELECT table_name, table_type LIKE '%VIEW', IF(table_type LIKE '%VIEW', '', table_comment)
FROM information_schema.tables WHERE table_schema = DATABASE() ORDER BY 2, 1
"""
COLUMNS = """
SELECT table_name, column_name, column_type, column_comment, column_key = 'PRI', privileges LIKE '%select%'
FROM information_schema.columns WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position
"""
# The last declared first, as SQLite lists them, where keys are declared in the order of their columns.
FOREIGN_KEYS = """
SELECT k.constraint_name, k.table_name, k.column_name, k.referenced_table_name, k.referenced_column_name
FROM information_schema.key_column_usage k JOIN information_schema.columns c
USING (table_schema, table_name, column_name)
WHERE k.table_schema = DATABASE() AND k.referenced_table_schema = DATABASE()
ORDER BY k.table_name, MIN(c.ordinal_position) OVER (PARTITION BY k.table_name, k.constraint_name) DESC,
k.constraint_name, k.ordinal_position
"""


def connect(job: dict[str, Any]) -> Any:
    arguments = driver_arguments(DRIVER_NAME, job["url"])
    arguments |= {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": job["timeout_s"] + 1,
        "local_infile": False,
    }
    connection = pymysql.connect(**arguments)
    is_mariadb = "mariadb" in connection.get_server_info().lower()
    milliseconds = max(1, int(1000 * job["timeout_s"]))
    limit = f"max_execution_time = {milliseconds}"
    if is_mariadb:
        limit = f"max_statement_time = {milliseconds / 1000}"
    seconds = max(1, ceil(job["timeout_s"]))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SET SESSION {limit}, SESSION lock_wait_timeout = {seconds}, "
            f"SESSION innodb_lock_wait_timeout = {seconds}"
        )
        if job["mode"] == "serving":
            _refuse_powers(cursor)
        cursor.execute("SET SESSION TRANSACTION READ ONLY")
        cursor.execute("START TRANSACTION READ ONLY")
    return connection


def _refuse_powers(cursor: Any) -> None:
    powers = ", ".join(f"'{power}'" for power in POWERS)
    cursor.execute(
        f"SELECT grantee, privilege_type FROM information_schema.user_privileges WHERE privilege_type IN ({powers})"
    )
    if found := cursor.fetchone():
        raise Denied(
            f"the user {found[0]} can reach files or settings of the server; connect as one that can only SELECT"
        )


def refuse_no_query(sql: str) -> None:
    """Raises Denied."""
    if _EXECUTABLE_COMMENT.search(sql):
        raise Denied("comments that begin /*! are code; leave them out")
    start = _BEFORE_STATEMENT.match(sql)
    if start is None or not _QUERY.match(sql, start.end()):
        raise Denied("only queries are run")
    if _FILES.search(sql):
        raise Denied("files of the server are neither read nor written")


def fetch(connection: Any, sql: str, count: int) -> tuple[list[str], list[Any]]:
    """Unbuffered; the driver's protocol takes one statement unless told otherwise."""
    refuse_no_query(sql)
    cursor = connection.cursor(SSCursor)
    cursor.execute(sql)
    columns = [column[0] for column in cursor.description or ()]
    rows = list(cursor.fetchmany(count))
    cursor.connection = None  # else it would read what is left, which may have no end
    return columns, rows


def interrupt(connection: Any) -> None:
    """A thread that waits for the server wakes up when the socket is shut down, not when it is closed."""
    with suppress(OSError, AttributeError):
        connection._sock.shutdown(socket.SHUT_RDWR)


def classify(error: BaseException) -> str:
    number = error.args[0] if error.args else None
    if number in TIMEOUT:
        return "TIMEOUT"
    if number in TROUBLE or isinstance(error, pymysql.err.InterfaceError):
        return "UNAVAILABLE"
    return "DENIED" if number in DENIED else "SQL_ERROR"


def said(error: BaseException) -> str:
    """Without the number, which the driver prints as a tuple."""
    return str(error.args[-1] if error.args else error).strip()


def catalogue(connection: Any) -> dict[str, Any]:
    def rows(sql: str) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    columns: dict[str, list[dict[str, Any]]] = {}
    for table, name, kind, comment, is_primary, may_read in rows(COLUMNS):
        known = {"name": name, "type": kind, "comment": comment or "", "is_primary_key": bool(is_primary)}
        columns.setdefault(table, []).extend([known] if may_read else [])
    tables = [
        {"name": name, "comment": comment or "", "is_view": bool(is_view), "columns": columns[name]}
        for name, is_view, comment in rows(TABLES)
        if columns.get(name)  # a view of what is not there any more has no columns
    ]
    keys: dict[tuple[str, str], dict[str, Any]] = {}
    for key, table, column, referred, referred_column in rows(FOREIGN_KEYS):
        found = keys.setdefault(
            (table, key), {"table": table, "columns": [], "referred_table": referred, "referred_columns": []}
        )
        found["columns"].append(column)
        found["referred_columns"].append(referred_column)
    denied = sorted(name for name, readable in columns.items() if not readable)
    return {"tables": tables, "foreign_keys": [*keys.values()], "denied": denied}


def close(connection: Any) -> None:
    """Without reading what is left of a result, which may have no end. The server rolls back."""
    connection._force_close()


DRIVER = Driver(connect, fetch, interrupt, close, classify, catalogue, said)
