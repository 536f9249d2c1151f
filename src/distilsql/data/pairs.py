"""A user's own question/SQL pairs: a `.jsonl`, `.json`, `.csv` or `.tsv` file beside SQLite files.

Fields: `question`; `sql` (or `query`, `SQL`, `gold_sql`); optionally `example_id`, `evidence`, `db_id` and `database`.
The database file is the record's own `database`, relative to the pairs file, or else the one given for all; that may
be a folder holding `<db_id>.sqlite` or `<db_id>/<db_id>.sqlite`. Without a `db_id` the file's name serves.
"""

import re
from pathlib import Path

from distilsql.data.layout import Layout
from distilsql.data.records import TABLE_SUFFIXES, Record, is_there
from distilsql.errors import DataError

PAIR_SUFFIXES = (".jsonl", ".json", *TABLE_SUFFIXES)


def pairs_layout(file: Path, database: Path | None = None) -> Layout:
    """The pairs in `file`, asked of `database` unless a record names its own. Raises DataError if that is a server."""
    # pathlib has made one slash of two.
    if database is not None and re.match(r"[a-zA-Z0-9+]{2,}:/", str(database)):
        raise DataError(
            f"{database} is the address of a server, and own pairs are about a SQLite file; export the database to "
            "one. (`distilsql.databases.execute` runs single statements on servers.)"
        )

    def locate(record: Record) -> tuple[str, Path]:
        return _locate(record, database)

    return Layout(
        name=str(file),
        files=(file,),
        locate=locate,
        sql_fields=("sql", "query", "SQL", "gold_sql"),
        with_evidence=True,
        evaluator="plain",
        ids_by_content=True,
    )


def _locate(record: Record, database: Path | None) -> tuple[str, Path]:
    db_id = record.optional_text("db_id")
    if own := record.optional_text("database"):
        path = record.file.parent / own
    elif database is None:
        raise record.error(
            "malformed",
            "database",
            "no database file is known; give one for all pairs, or one in each record",
        )
    elif database.is_dir():
        path = database / record.text("db_id") / f"{db_id}.sqlite"
        if not is_there(path):
            path = database / f"{db_id}.sqlite"
    else:
        path = database
    return db_id or path.stem, path
