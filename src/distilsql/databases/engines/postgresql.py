"""PostgreSQL: a read-only transaction, limits that the server keeps, and a cursor that takes exactly one SELECT."""

from typing import Any

import psycopg

from distilsql.databases.engines.driver import CONNECT_TIMEOUT_S, Denied, Driver, driver_arguments
from distilsql.databases.engines.inspection import inspected

DRIVER_NAME = "postgresql+psycopg"
# Roles that reach beyond the database's own tables.
POWERS = ("pg_read_server_files", "pg_write_server_files", "pg_execute_server_program")
TIMEOUT = "57014"
DENIED = ("42501", "25006")
SYNTAX_ERROR = "42601"
# Classes of states: connection, resources, the operator's hand, the system, a damaged file, an internal error.
TROUBLE = ("08", "53", "57", "58", "F0", "XX")
LOCKED = ("40P01", "55P03")
CURSOR = "distilsql"
READABLE = """
SELECT n.nspname, c.relname, a.attname, has_column_privilege(c.oid, a.attnum, 'SELECT')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
"""


def connect(job: dict[str, Any]) -> Any:
    arguments = driver_arguments(DRIVER_NAME, job["url"])
    # Options of the user's own come first: of two settings the later counts.
    options = [option for option in [arguments.pop("options", "")] if option]
    search_path = arguments.pop("search_path", "")
    if search_path:
        options.append(_setting("search_path", search_path))
    milliseconds = max(1, int(1000 * job["timeout_s"]))
    settings = {
        "default_transaction_read_only": "on",
        "statement_timeout": milliseconds,
        "lock_timeout": milliseconds,
        "idle_in_transaction_session_timeout": 2 * milliseconds,
    }
    options += [_setting(name, value) for name, value in settings.items()]
    arguments |= {"options": " ".join(options), "connect_timeout": CONNECT_TIMEOUT_S}
    connection = psycopg.connect(**arguments)
    if job["mode"] == "serving":
        _refuse_powers(connection)
    return connection


def _setting(name: str, value: object) -> str:
    return f"-c {name}=" + str(value).replace("\\", r"\\").replace(" ", r"\ ")


def _refuse_powers(connection: Any) -> None:
    roles = ", ".join(f"pg_has_role('{power}', 'member')" for power in POWERS)
    found = connection.execute(
        f"SELECT rolname, rolsuper, {roles} FROM pg_roles WHERE rolname = current_user"
    )
    role, *powers = found.fetchone()
    if any(powers):
        raise Denied(
            f"the role {role} can reach files or programs of the server; connect as one that can only SELECT"
        )


def fetch(connection: Any, sql: str, count: int) -> tuple[list[str], list[Any]]:
    """A named cursor: DECLARE takes exactly one SELECT, and the one FETCH is the one statement with a clock."""
    with connection.cursor(name=CURSOR) as cursor:
        cursor.execute(sql)
        columns = [column.name for column in cursor.description or ()]
        return columns, cursor.fetchmany(count)


def classify(error: BaseException) -> str:
    state = getattr(error, "sqlstate", None)
    if state == TIMEOUT:
        return "TIMEOUT"
    if state is None and isinstance(error, psycopg.OperationalError):  # the connection is lost
        return "UNAVAILABLE"
    if state in LOCKED or (state or "").startswith(TROUBLE):
        return "UNAVAILABLE"
    return "DENIED" if state in DENIED else "SQL_ERROR"


def said(error: BaseException) -> str:
    """Without the line that the server points at: the cursor's declaration, which nobody wrote, stands in it."""
    told = getattr(error, "diag", None)
    if told is None or told.message_primary is None:
        return str(error).strip()
    begins_at = len(f'DECLARE "{CURSOR}" CURSOR FOR ') + 1
    if told.sqlstate == SYNTAX_ERROR and told.statement_position == str(begins_at):
        return f"{told.message_primary}: only a query can be run, which begins with SELECT, WITH or VALUES"
    hints = [
        f"{word}: {text}"
        for word, text in (("DETAIL", told.message_detail), ("HINT", told.message_hint))
        if text
    ]
    return "\n".join([told.message_primary, *hints])


def catalogue(connection: Any) -> dict[str, Any]:
    schemas = list(connection.execute("SELECT current_schemas(false)").fetchone()[0])
    readable = connection.execute(READABLE).fetchall()
    elsewhere = sorted({schema for schema, *_, is_allowed in readable if is_allowed} - {*schemas})
    return inspected(DRIVER_NAME, connection, schemas, readable) | {"elsewhere": elsewhere}


def close(connection: Any) -> None:
    connection.rollback()
    connection.close()


DRIVER = Driver(connect, fetch, lambda connection: connection.cancel(), close, classify, catalogue, said)
