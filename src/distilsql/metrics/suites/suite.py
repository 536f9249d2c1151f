"""Test suite: more databases with the same schema, which expose wrong queries that the benchmark's own do not.

A folder with one subfolder per database, written by `metrics.build_suite`:

    <suite>/suite.json             name, seed and limits
    <suite>/<db_id>/variant-007.sqlite
    <suite>/<db_id>/report.json    what each variant tells apart; its presence says that this database is finished
"""

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distilsql.databases.reading import quoted_name
from distilsql.errors import DataError

SUITE_FILE = "suite.json"
REPORT_FILE = "report.json"


@dataclass(frozen=True)
class Suite:
    """A finished suite. `reports` maps db_id to the content of its report."""

    folder: Path
    name: str
    reports: Mapping[str, Mapping[str, Any]]

    @property
    def label(self) -> str:
        """The name under which scores on this suite are reported; never the official suites' name."""
        return f"{self.name} [{self.checksum if self.size else 'no variants'}]"

    @property
    def size(self) -> int:
        """The number of databases in it."""
        return sum(len(report["variants"]) for report in self.reports.values())

    @cached_property
    def checksum(self) -> str:
        """Twelve hexadecimal digits over what every database of the suite holds."""
        contents = {
            f"{db_id}/{variant['file']}": variant["content"]
            for db_id, report in self.reports.items()
            for variant in report["variants"]
        }
        return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:12]

    def databases(self, db_id: str, gold_sql: str) -> tuple[Path, ...]:
        """The suite's databases that judge this gold query, given as it is run with DISTINCT kept.

        Left out are those on which the gold's result depends on the order in which SQLite happens to read rows, as
        `ORDER BY … LIMIT 1` does under a tie: a right query could differ there. Raises DataError for a database
        or a gold query that the suite was not built for.
        """
        if db_id not in self.reports:
            raise DataError(
                f"The suite {self.name} has no databases for {db_id}; build it for this benchmark."
            )
        gold_id = identify(gold_sql)
        if gold_id not in self.reports[db_id]["golds"]:
            raise DataError(
                f"The suite {self.name} was not built for this gold query of {db_id}, so it cannot judge it: "
                f"{gold_sql!r}. Build a suite for this benchmark."
            )
        variants = self.reports[db_id]["variants"]
        return tuple(self.folder / db_id / v["file"] for v in variants if gold_id not in v["unstable_golds"])


def load_suite(folder: Path) -> Suite:
    """Raises DataError if there is no suite in `folder`, it is not finished, or a file has changed since."""
    try:
        settings = json.loads((folder / SUITE_FILE).read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"There is no test suite in {folder} ({error}); make one with `distilsql suite build`."
        ) from error
    reports = {}
    for db_id in settings["databases"]:
        report = folder / db_id / REPORT_FILE
        if not report.is_file():
            raise DataError(
                f"The suite in {folder} is not finished ({db_id} is missing); run the same build again."
            )
        reports[db_id] = json.loads(report.read_text())
        _check_files(folder / db_id, reports[db_id])
    return Suite(folder, settings["name"], reports)


def _check_files(folder: Path, report: Mapping[str, Any]) -> None:
    for variant in report["variants"]:
        path = folder / variant["file"]
        if not path.is_file() or content_checksum(path) != variant.get("content"):
            raise DataError(
                f"{path} was changed, or built by an earlier version; delete {folder} and build the suite again."
            )


def content_checksum(path: Path) -> str:
    """SHA-256 over schema and rows, the same whichever version of SQLite wrote them; '' if they cannot be read."""
    digest = hashlib.sha256()
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.text_factory = bytes
            objects = connection.execute(
                "SELECT type, name, sql FROM sqlite_master ORDER BY rowid"
            ).fetchall()
            digest.update(repr(objects).encode())
            for name in (name.decode() for kind, name, _ in objects if kind == b"table"):
                rows = connection.execute(f"SELECT * FROM {quoted_name(name)}")
                digest.update("\n".join(sorted(map(repr, rows))).encode())
    except sqlite3.Error:
        return ""
    return digest.hexdigest()


def identify(gold_sql: str) -> str:
    """A short stable name of a gold query inside a report."""
    return hashlib.sha256(gold_sql.encode()).hexdigest()[:16]
