"""A user's own question/SQL pairs: a `.jsonl`, `.json`, `.csv` or `.tsv` file, about one database or several.

Fields: `question`; `sql` (or `query`, `SQL`, `gold_sql`); optionally `example_id`, `evidence`, `db_id` and `database`.
The database is the record's own `database`, a URL or a path that is relative to the pairs file, or else the one given
for all; that may be a folder holding `<db_id>.sqlite` or `<db_id>/<db_id>.sqlite`. Without a `db_id` the name of its
file, or its name at the server, serves.
"""

from pathlib import Path

from distilsql.data.layout import Layout
from distilsql.data.records import TABLE_SUFFIXES, Record, is_there
from distilsql.databases.url import DatabaseUrl, Place, id_of, known_place
from distilsql.errors import DataError

PAIR_SUFFIXES = (".jsonl", ".json", *TABLE_SUFFIXES)


def pairs_layout(file: Path, database: Place | None = None) -> Layout:
    """The pairs in `file`, asked of `database` unless a record names its own."""

    def locate(record: Record) -> tuple[str, Place]:
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


def _locate(record: Record, database: Place | None) -> tuple[str, Place]:
    db_id = record.optional_text("db_id")
    path: Place
    if own := record.optional_text("database"):
        try:
            path = known_place(own, record.file.parent, database)
        except DataError as error:
            raise record.error("malformed", "database", str(error)) from error
    elif database is None:
        raise record.error(
            "malformed",
            "database",
            "no database is known; give one for all pairs, or one in each record",
        )
    elif isinstance(database, DatabaseUrl):
        path = database
    elif database.is_dir():
        path = database / record.text("db_id") / f"{db_id}.sqlite"
        if not is_there(path):
            path = database / f"{db_id}.sqlite"
    else:
        path = database
    return db_id or id_of(path), path
