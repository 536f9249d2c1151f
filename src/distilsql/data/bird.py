"""BIRD (Li et al. 2023): train, dev and mini-dev, without and with evidence, and what describes their columns."""

import csv
import io
from pathlib import Path
from typing import NamedTuple

from distilsql.data.layout import Layout
from distilsql.data.tables_json import Catalogue
from distilsql.databases.schema import Comments


class _Split(NamedTuple):
    """Paths under the data folder's `bird/`."""

    questions: str
    tables_json: str
    databases: str


# train.zip unpacks to a folder of its own, `train/`; the parts of dev lie in `bird/` itself, and mini-dev shares them.
_SPLITS = {
    "bird:train": _Split("train/train.json", "train/train_tables.json", "train/train_databases"),
    "bird:dev": _Split("dev.json", "dev_tables.json", "dev_databases"),
    "bird:mini-dev": _Split("mini_dev_sqlite.json", "dev_tables.json", "dev_databases"),
}
EVIDENCE_SUFFIX = "+evidence"
BIRD_SPECS = tuple(spec + suffix for spec in _SPLITS for suffix in ("", EVIDENCE_SUFFIX))


def bird_layout(spec: str, root: Path) -> Layout:
    """Where `spec`, one of BIRD_SPECS, lies under the data folder `root`.

    With and without evidence are two settings with scores of their own: the evidence reaches the Example only in
    the one that is named for it.
    """
    split, folder = _SPLITS[spec.removesuffix(EVIDENCE_SUFFIX)], root / "bird"
    catalogue = Catalogue(folder / split.tables_json, (folder / split.databases,))

    def comments(db_id: str, path: Path) -> Comments:
        names = catalogue.comments(db_id, path)
        described = read_descriptions(path.parent / "database_description")
        return Comments(names.tables, {**names.columns, **described})

    return Layout(
        name=spec,
        files=(folder / split.questions,),
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
        for row in csv.DictReader(io.StringIO(_decode(file.read_bytes()), newline="")):
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
