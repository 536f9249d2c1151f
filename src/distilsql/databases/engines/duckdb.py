"""DuckDB: a file opened to be read, no other file, no extension, settings locked, and only SELECT."""

from typing import Any

import duckdb

from distilsql.databases.engines.driver import Denied, Driver

HERE = "database_name = current_database() AND schema_name = ?"


def connect(job: dict[str, Any]) -> Any:
    config: dict[str, Any] = {
        "enable_external_access": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "memory_limit": f"{job['memory_bytes'] // 2}B",
        "threads": 1,
        "temp_directory": "",
    }
    connection = duckdb.connect(job["url"]["name"], read_only=True, config=config)
    search_path = job["url"]["query"].get("search_path")
    if search_path:
        quoted = search_path.replace("'", "''")
        connection.execute(f"SET search_path = '{quoted}'")
    connection.execute("SET lock_configuration = true")
    return connection


def fetch(connection: Any, sql: str, count: int) -> tuple[list[str], list[Any]]:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise duckdb.ParserException("You can only execute one statement at a time.")
    if statements[0].type != duckdb.StatementType.SELECT:
        raise Denied(f"only queries are run, this is {statements[0].type.name}")
    cursor = connection.execute(statements[0])
    return [column[0] for column in cursor.description or ()], cursor.fetchmany(count)


def classify(error: BaseException) -> str:
    if isinstance(error, duckdb.PermissionException) or "disabled by configuration" in str(error):
        return "DENIED"
    if isinstance(error, duckdb.InterruptException):
        return "TIMEOUT"
    if isinstance(error, duckdb.IOException | duckdb.InternalException | duckdb.FatalException):
        return "UNAVAILABLE"
    return "TOO_LARGE" if isinstance(error, duckdb.OutOfMemoryException) else "SQL_ERROR"


def catalogue(connection: Any) -> dict[str, Any]:
    """Tables and views by name; of two of one name that of the earlier schema of the search path."""

    def rows(sql: str, *values: str) -> list[Any]:
        return connection.execute(sql, values).fetchall()

    ((schemas,),) = rows("SELECT current_schemas(true)")
    found: dict[str, dict[str, Any]] = {}
    keys: list[dict[str, Any]] = []
    hidden: list[str] = []
    for schema in dict.fromkeys(schemas):
        listed = rows(
            "SELECT table_name, comment, false AS is_view FROM duckdb_tables() "
            f"WHERE {HERE} AND NOT internal UNION ALL SELECT view_name, comment, true FROM duckdb_views() "
            f"WHERE {HERE} AND NOT internal ORDER BY is_view, table_name",
            schema,
            schema,
        )
        for name, comment, is_view in listed:
            if name in found:
                hidden.append(f"{schema}.{name}")
                continue
            constraints = rows(
                "SELECT constraint_type, constraint_column_names, referenced_table, referenced_column_names "
                f"FROM duckdb_constraints() WHERE {HERE} AND table_name = ?",
                schema,
                name,
            )
            primary = {
                column for kind, columns, *_ in constraints if kind == "PRIMARY KEY" for column in columns
            }
            columns = rows(
                "SELECT column_name, data_type, comment FROM duckdb_columns() "
                f"WHERE {HERE} AND table_name = ? ORDER BY column_index",
                schema,
                name,
            )
            found[name] = {
                "name": name,
                "comment": comment or "",
                "is_view": is_view,
                "columns": [
                    {
                        "name": column,
                        "type": kind,
                        "comment": said or "",
                        "is_primary_key": column in primary,
                    }
                    for column, kind, said in columns
                ],
            }
            places = [column for column, *_ in columns]
            foreign = [
                {
                    "table": name,
                    "columns": own,
                    "referred_table": referred,
                    "referred_columns": referred_columns,
                }
                for kind, own, referred, referred_columns in constraints
                if kind == "FOREIGN KEY"
            ]
            keys += sorted(foreign, key=lambda key: places.index(key["columns"][0]), reverse=True)
    all_schemas = rows(
        "SELECT DISTINCT schema_name FROM duckdb_tables() WHERE database_name = current_database()"
    )
    elsewhere = sorted({schema for (schema,) in all_schemas} - {*schemas})
    tables = sorted(found.values(), key=lambda table: table["is_view"])
    return {"tables": tables, "foreign_keys": keys, "denied": [], "hidden": hidden, "elsewhere": elsewhere}


DRIVER = Driver(
    connect,
    fetch,
    lambda connection: connection.interrupt(),
    lambda connection: connection.close(),
    classify,
    catalogue,
)
