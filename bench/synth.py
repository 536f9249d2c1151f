"""What synthesis costs: 900 tables and ten million rows profiled, 5,000 pairs made of 20 tables.

    python bench/synth.py
    python bench/synth.py --postgresql

Makes the databases, the same each time, in a temporary folder (1 GB for the large table; `--rows` makes it smaller).
`--postgresql` does it on a server of its own, which it starts as the tests do and asks as a user who may read alone.
Seconds of the clock, the largest memory of this process, and what the checks kept go to bench/results/synth.json or
synth-postgresql.json, each figure as soon as it is there.
"""

import argparse
import json
import os
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from distilsql.synthesis.names import draft_names
from distilsql.synthesis.profile import profile
from distilsql.synthesis.source import open_source
from distilsql.synthesis.synthesise import synthesise

RESULTS = Path(__file__).with_name("results") / "synth.json"
TABLES, PAIRS, LARGE_PAIRS = 900, 5000, 40
SERVER_PAIRS = 300
ROWS_OF_A_TABLE = 200
KINDS = {
    "customer": "name:name city:category joined:date age:amount",
    "supplier": "name:name country:category rating:amount founded:year",
    "product": "name:name colour:category price:amount weight:amount",
    "shop": "name:name city:category opened:date floor_area:amount",
    "employee": "name:name job:category salary:amount hired:date",
    "order": "status:category ordered_on:date amount:amount",
    "payment": "method:category paid_on:date amount:amount",
    "delivery": "carrier:category sent_on:date distance:amount",
    "return": "reason:category returned_on:date refund:amount",
    "review": "language:category written_on:date stars:amount",
}
WORDS = {
    "city": "Lisbon Porto Madrid Seville Lyon Nantes Turin Graz",
    "country": "Portugal Spain France Italy Austria",
    "colour": "red blue green black white",
    "job": "clerk driver buyer manager cook",
    "status": "open paid sent returned cancelled",
    "method": "card cash transfer voucher",
    "carrier": "rail road air sea",
    "reason": "broken late unwanted wrong",
    "language": "English French Spanish German",
}


def write_database(path: Path, tables: int, rows: int, *, declared: bool) -> None:
    """`tables` tables of the kinds above, each referring to the two before it."""
    names = [
        f"{kind}_{number // len(KINDS)}"
        for number, kind in zip(range(tables), list(KINDS) * tables, strict=False)
    ]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=off")
        for number, name in enumerate(names):
            columns = [column.split(":") for column in KINDS[name.rpartition("_")[0]].split()]
            parents = names[max(0, number - 2) : number]
            types = {"amount": "REAL", "year": "INTEGER"}
            parts = [f"{name}_id INTEGER PRIMARY KEY"] + [
                f"{c} {types.get(kind, 'TEXT')}" for c, kind in columns
            ]
            keys = [f"{p}_id INTEGER" + (f" REFERENCES {p} ({p}_id)" if declared else "") for p in parents]
            connection.execute(f"CREATE TABLE {name} ({', '.join(parts + keys)})")
            marks = ", ".join("?" * (1 + len(columns) + len(parents)))
            connection.executemany(
                f"INSERT INTO {name} VALUES ({marks})",
                (
                    [
                        row,
                        *(_cell(column, kind, row, number) for column, kind in columns),
                        *(1 + (row * (7 + at) + number) % rows for at in range(len(parents))),
                    ]
                    for row in range(1, rows + 1)
                ),
            )
        connection.commit()


def _cell(column: str, kind: str, row: int, number: int) -> object:
    if kind == "amount":
        return round(10 + (row * 7919 + number * 31) % 9973 / 10, 1)
    if kind == "year":
        return 1900 + (row * row + number) % 120
    if kind == "date":
        return f"{2015 + row * 3 % 9}-{1 + row % 12:02d}-{1 + row * 5 % 28:02d}"
    if kind == "name":
        return f"{column.title()} {row:04d}"
    words = WORDS[column].split()
    return words[(row * row + number + row // 5) % len(words)]


def write_large(path: Path, rows: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=off")
        connection.execute(
            "CREATE TABLE event (event_id INTEGER PRIMARY KEY, kind TEXT, happened_on TEXT, amount REAL)"
        )
        connection.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO event SELECT "
            "i, trim(substr('view buy  send ', 1 + 5 * (i % 3), 5)), date('2015-01-01', '+' || (i % 3000) || ' days'), "
            "i * 7919 % 9973 / 10.0 FROM n",
            (rows,),
        )
        connection.commit()


def write_at_server(server: Any, name: str, path: Path) -> None:
    """The tables, rows and keys of a SQLite file as a database of PostgreSQL."""
    import psycopg

    from servers import PASSWORD

    server.run("postgres", f"CREATE DATABASE {name}")
    where = {"host": str(server.folder), "user": "owner", "password": PASSWORD, "dbname": name}
    with closing(sqlite3.connect(path)) as file, psycopg.connect(**where) as connection:
        for table, sql in file.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall():
            connection.execute(sql)
            with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                for row in file.execute(f"SELECT * FROM {table}"):
                    copy.write_row(row)
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")


def write_large_at_server(server: Any, rows: int) -> None:
    """Never analysed, so that the number of its rows is not known to the server."""
    server.run("postgres", "CREATE DATABASE large")
    server.run(
        "large",
        "CREATE TABLE event (event_id int PRIMARY KEY, kind text, happened_on text, amount double precision) "
        "WITH (autovacuum_enabled = off)",
        "INSERT INTO event SELECT i, (ARRAY['view', 'buy', 'send'])[1 + i % 3], "
        "(date '2015-01-01' + i % 3000)::text, i::bigint * 7919 % 9973 / 10.0 "
        f"FROM generate_series(1, {rows}) AS s (i)",
        "GRANT SELECT ON event TO reader",
    )


@contextmanager
def postgresql() -> Iterator[Any]:
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from servers import PASSWORD, running_postgresql

    with running_postgresql() as server:
        server.run("postgres", f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
        yield server


def profiled(place: Path | str) -> dict[str, Any]:
    start = time.perf_counter()
    source = open_source(place)
    opened = time.perf_counter()
    found = profile(source)
    draft_names(source, found)
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "of_which_schema": round(opened - start, 2),
        "tables": len(found.tables),
        "keys": len(found.keys),
        "rows_estimated": max(table.row_count for table in found.tables),
    }


def made(place: Path | str, folder: Path, pairs: int) -> dict[str, Any]:
    start = time.perf_counter()
    synthesis = synthesise(open_source(place), folder, pairs=pairs)
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "pairs": dict(synthesis.pairs),
        "queries": synthesis.queries,
        "verdicts": dict(synthesis.verdicts),
    }


def of_sqlite(rows: int, pairs: int, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, declared in (("900_tables", True), ("900_tables_without_keys", False)):
        write_database(folder / f"{name}.sqlite", TABLES, ROWS_OF_A_TABLE, declared=declared)
        yield name, profiled(folder / f"{name}.sqlite")
    write_large(folder / "large.sqlite", rows)
    yield "large_table", profiled(folder / "large.sqlite")
    write_database(folder / "shop.sqlite", 20, 400, declared=True)
    yield "pairs_of_20_tables", made(folder / "shop.sqlite", folder / "shop", pairs)
    yield "pairs_of_the_large_table", made(folder / "large.sqlite", folder / "large", LARGE_PAIRS)


def of_postgresql(rows: int, pairs: int, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with postgresql() as server:
        for name, declared in (("tables", True), ("tables_without_keys", False)):
            write_database(folder / f"{name}.sqlite", TABLES, ROWS_OF_A_TABLE, declared=declared)
            write_at_server(server, name, folder / f"{name}.sqlite")
            yield f"900_{name}", profiled(server.url("reader", name))
        write_large_at_server(server, rows)
        yield "large_table", profiled(server.url("reader", "large"))
        write_database(folder / "shop.sqlite", 20, 400, declared=True)
        write_at_server(server, "shop", folder / "shop.sqlite")
        yield "pairs_of_20_tables", made(server.url("reader", "shop"), folder / "shop", pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the large table")
    parser.add_argument("--pairs", type=int, help=f"default: {PAIRS:,}, or {SERVER_PAIRS} with --postgresql")
    parser.add_argument("--postgresql", action="store_true")
    given = parser.parse_args()
    results: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "python": sys.version.split()[0]}
    measure, file, pairs = of_sqlite, RESULTS, PAIRS
    if given.postgresql:
        measure, file, pairs = of_postgresql, RESULTS.with_stem("synth-postgresql"), SERVER_PAIRS
    with tempfile.TemporaryDirectory() as scratch:
        for name, found in measure(given.rows, given.pairs or pairs, Path(scratch)):
            results[name] = found
            results["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            print(name, found, flush=True)


if __name__ == "__main__":
    main()
