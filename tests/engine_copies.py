"""One database on four engines: a SQLite file's tables, rows, keys and views made anew on another."""

import sqlite3
from contextlib import closing, contextmanager

import pytest

from distilsql.databases.dialect import quoted_in
from distilsql.databases.url import place_of
from servers import PASSWORD

HOMES = {"postgresql": "postgres", "mysql": "mysql"}
ENGINES = ("sqlite", "duckdb", "postgresql", "mysql")
TYPES = {
    "INTEGER": "int",
    "REAL": "double precision",
    "TEXT": "varchar(120)",
    "DATE": "date",
    "": "varchar(120)",
}


def reader_of(name):
    """The user of a database who may read it alone."""
    return f"reader_of_{name}"


@contextmanager
def copied(path, engine, request, folder):
    """The place of a copy of a SQLite file; at a server, as a user who may read alone."""
    if engine == "sqlite":
        yield path
    elif engine == "duckdb":
        duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
        with duckdb.connect(str(folder / f"{path.stem}.duckdb")) as connection:
            for statement in statements(path, engine):
                connection.execute(statement)
        yield place_of(str(folder / f"{path.stem}.duckdb"))
    else:
        with at_server(path.stem, engine, request, statements(path, engine)) as (place, _):
            yield place


@contextmanager
def at_server(name, engine, request, made):
    """A database of these statements: its place as a reader, and its server."""
    server = request.getfixturevalue("mariadb_server" if engine == "mysql" else "postgresql_server")
    home = HOMES[engine]
    reader = reader_of(name)
    server.run(home, f"CREATE DATABASE {name}")
    if engine == "mysql":
        account = f"{reader}@localhost"
        server.run(
            home,
            f"CREATE USER {account} IDENTIFIED BY '{PASSWORD}'",
            f"GRANT SELECT ON {name}.* TO {account}",
        )
    else:
        account = reader
        server.run(home, f"CREATE ROLE {account} LOGIN PASSWORD '{PASSWORD}'")
    server.run(name, *made)
    if engine == "postgresql":
        server.run(name, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {account}")
    try:
        yield place_of(server.url(reader, name)), server
    finally:
        if engine == "mysql":
            server.run(home, f"DROP DATABASE {name}", f"DROP USER {account}")
        else:
            server.run(home, f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {account}")


def statements(path, engine):
    """What makes the database anew: tables in the file's order, then rows, then views."""

    def q(name):
        return quoted_in(name, engine)

    made = []
    with closing(sqlite3.connect(path)) as connection:
        objects = connection.execute(
            "SELECT name, type, sql FROM sqlite_master WHERE type <> 'index'"
        ).fetchall()
        tables = [name for name, kind, _ in objects if kind == "table"]
        for table in tables:
            info = connection.execute(f"PRAGMA table_info({quoted_in(table, 'sqlite')})").fetchall()
            parts = [f"{q(name)} {TYPES[kind]}" for _, name, kind, *_ in info]
            key = [q(row[1]) for row in sorted(info, key=lambda row: row[5]) if row[5]]
            parts += [f"PRIMARY KEY ({', '.join(key)})"] if key else []
            keys = {}
            for number, _, parent, mine, other, *_ in connection.execute(
                f"PRAGMA foreign_key_list({quoted_in(table, 'sqlite')})"
            ):
                keys.setdefault(number, (parent, [], []))[1].append(q(mine))
                keys[number][2].append(q(other or mine))
            for parent, mine, others in keys.values():
                parts.append(f"FOREIGN KEY ({', '.join(mine)}) REFERENCES {q(parent)} ({', '.join(others)})")
            made.append(f"CREATE TABLE {q(table)} ({', '.join(parts)})")
            rows = connection.execute(f"SELECT * FROM {quoted_in(table, 'sqlite')}").fetchall()
            if rows:
                written = ", ".join(f"({', '.join(map(_literal, row))})" for row in rows)
                made.append(f"INSERT INTO {q(table)} VALUES {written}")
        for name, kind, sql in objects:
            if kind == "view" and name != "broken":
                made.append(sql.replace('"', "`") if engine == "mysql" else sql)
    return made


def _literal(cell):
    if cell is None:
        return "NULL"
    return "'" + cell.replace("'", "''") + "'" if isinstance(cell, str) else repr(cell)
