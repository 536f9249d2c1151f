"""What synthesis costs: 900 tables and ten million rows profiled, 5,000 pairs made of 20 tables.

    python bench/synth.py

Makes the databases, the same each time, in a temporary folder (1 GB for the large table; `--rows` makes it smaller).
Seconds of the clock, the largest memory of this process, and what the checks kept go to bench/results/synth.json.
"""

import argparse
import json
import os
import resource
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from distilsql.synthesis.names import draft_names
from distilsql.synthesis.profile import profile
from distilsql.synthesis.source import open_source
from distilsql.synthesis.synthesise import synthesise

RESULTS = Path(__file__).with_name("results") / "synth.json"
TABLES, PAIRS, LARGE_PAIRS = 900, 5000, 40
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


def profiled(path: Path) -> dict[str, Any]:
    start = time.perf_counter()
    source = open_source(path)
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


def made(path: Path, pairs: int) -> dict[str, Any]:
    start = time.perf_counter()
    synthesis = synthesise(open_source(path), path.with_suffix(""), pairs=pairs)
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "pairs": dict(synthesis.pairs),
        "queries": synthesis.queries,
        "verdicts": dict(synthesis.verdicts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the large table")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    arguments = parser.parse_args()
    results: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "python": sys.version.split()[0]}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, declared in (("900_tables", True), ("900_tables_without_keys", False)):
            write_database(folder / f"{name}.sqlite", TABLES, 200, declared=declared)
            results[name] = profiled(folder / f"{name}.sqlite")
            print(name, results[name], flush=True)
        write_large(folder / "large.sqlite", arguments.rows)
        results["large_table"] = profiled(folder / "large.sqlite")
        print("large table", results["large_table"], flush=True)
        write_database(folder / "shop.sqlite", 20, 400, declared=True)
        results["pairs_of_20_tables"] = made(folder / "shop.sqlite", arguments.pairs)
        print(results["pairs_of_20_tables"], flush=True)
        results["pairs_of_the_large_table"] = made(folder / "large.sqlite", LARGE_PAIRS)
    results["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
