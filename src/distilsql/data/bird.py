"""BIRD (Li et al. 2023): dev and mini-dev, without and with evidence, and the databases' column descriptions."""

import csv
from pathlib import Path

from distilsql.data.source import Source
from distilsql.data.tables_json import Catalogue
from distilsql.databases.schema import Comments

_FILES = {"bird:dev": "bird/dev.json", "bird:mini-dev": "bird/mini_dev_sqlite.json"}
EVIDENCE_SUFFIX = "+evidence"
BIRD_SPECS = tuple(spec + suffix for spec in _FILES for suffix in ("", EVIDENCE_SUFFIX))


def bird_source(spec: str, root: Path) -> Source:
    """Where `spec`, one of BIRD_SPECS, lies under the data folder `root`.

    With and without evidence are two settings with scores of their own: the evidence reaches the Example only in
    the one that is named for it.
    """
    catalogue = Catalogue(root / "bird" / "dev_tables.json", (root / "bird" / "dev_databases",))

    def comments(db_id: str, path: Path) -> Comments:
        names = catalogue.comments(db_id, path)
        described = read_descriptions(path.parent / "database_description")
        return Comments(names.tables, {**names.columns, **described})

    return Source(
        name=spec,
        files=(root / _FILES[spec.removesuffix(EVIDENCE_SUFFIX)],),
        locate=catalogue.locate,
        sql_fields=("SQL",),
        with_evidence=spec.endswith(EVIDENCE_SUFFIX),
        evaluator="bird",
        comments=comments,
    )


def read_descriptions(folder: Path) -> dict[tuple[str, str], str]:
    """What `database_description/<table>.csv` says of each column, by lower-case (table, column).

    The description, or the column's expanded name where the description is empty; columns with neither are left
    out. A database without the folder has no descriptions.
    """
    found = {}
    for file in sorted(folder.glob("*.csv")):
        for row in csv.DictReader(_decode(file.read_bytes()).splitlines(keepends=True)):
            cells = {(name or "").strip(): value for name, value in row.items() if isinstance(value, str)}
            texts = [" ".join(cells.get(name, "").split()) for name in ("column_description", "column_name")]
            column = cells.get("original_column_name", "").strip().lower()
            if text := next(filter(None, texts), ""):
                found[file.stem.lower(), column] = text
    return found


def _decode(raw: bytes) -> str:
    """The files are UTF-8 (some with a byte-order mark) but for a few saved as Windows-1252."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")
