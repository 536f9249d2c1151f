"""A small data folder in the formats of Spider and BIRD, with real SQLite files."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

SHOP = """
CREATE TABLE Shop (Shop_ID INTEGER PRIMARY KEY, Name TEXT, City VARCHAR(20));
CREATE TABLE Sale (Shop_ID INTEGER, Day DATE, Amount REAL, PRIMARY KEY (Shop_ID, Day),
    FOREIGN KEY (Shop_ID) REFERENCES Shop (Shop_ID));
INSERT INTO Shop VALUES (1, 'Corner', 'Ayr'), (2, 'Arcade', 'Leith');
INSERT INTO Sale VALUES (1, '2020-01-01', 9.5), (2, '2020-01-02', 3.0);
"""
ZOO = "CREATE TABLE animal (id INT, name TEXT); INSERT INTO animal VALUES (1, 'Rhea'), (2, 'Otto');"


def make_sqlite(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"BEGIN; {script}; COMMIT;")  # one write to disk
    return path


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def tables_record(db_id: str, tables: dict[str, list[str]]) -> dict[str, Any]:
    columns = [(index, name) for index, names in enumerate(tables.values()) for name in names]
    return {
        "db_id": db_id,
        "table_names_original": list(tables),
        "table_names": [name.lower() for name in tables],
        "column_names_original": [[-1, "*"], *map(list, columns)],
        "column_names": [[-1, "*"], *([index, f"{name.lower()} said plainly"] for index, name in columns)],
        "column_types": ["text"] * (len(columns) + 1),
        "primary_keys": [1],
        "foreign_keys": [],
    }


def question(db_id: str, text: str, query: str) -> dict[str, str]:
    return {"db_id": db_id, "question": text, "query": query}


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """Spider with the databases shop and zoo, and gone, which has no file; BIRD with shop, and zoo to train on."""
    root = tmp_path / "data"
    shop = tables_record("shop", {"Shop": ["Shop_ID", "Name", "City"], "Sale": ["Shop_ID", "Day", "Amount"]})
    zoo, gone = tables_record("zoo", {"animal": ["id", "name"]}), tables_record("gone", {"t": ["c"]})
    write_json(root / "spider/tables.json", [shop, zoo, gone])
    make_sqlite(root / "spider/database/shop/shop.sqlite", SHOP)
    make_sqlite(root / "spider/database/zoo/zoo.sqlite", ZOO)
    write_json(
        root / "spider/dev.json",
        [
            question("shop", "How many shops?", "SELECT count(*) FROM Shop"),
            question("zoo", "Name the animals.", "SELECT name FROM animal"),
            question("shop", "Shops of Ayr?", "SELECT Name FROM Shop WHERE City = 'Ayr'"),
        ],
    )
    write_json(
        root / "spider/train_spider.json",
        [question("gone", "What is c?", "SELECT c FROM t"), question("zoo", "Ids?", "SELECT id FROM animal")],
    )
    write_json(root / "spider/train_others.json", [question("zoo", "All?", "SELECT * FROM animal")])
    write_json(root / "bird/dev_tables.json", [shop])
    make_sqlite(root / "bird/dev_databases/shop/shop.sqlite", SHOP)
    description = "original_column_name,column_name,column_description\nCity,town,Where the shop’s door is\n"
    folder = root / "bird/dev_databases/shop/database_description"
    folder.mkdir()
    (folder / "Shop.csv").write_bytes(description.encode("cp1252"))
    record = {
        "db_id": "shop",
        "question": "Total sales?",
        "evidence": "sales are Amount",
        "SQL": "SELECT sum(Amount) FROM Sale",
        "difficulty": "simple",
    }
    write_json(root / "bird/dev.json", [record])
    write_json(root / "bird/train/train_tables.json", [zoo | {"primary_keys": [[1, 2]]}])
    make_sqlite(root / "bird/train/train_databases/zoo/zoo.sqlite", ZOO)
    training_record = {
        "db_id": "zoo",
        "question": "How many rheas?",
        "evidence": "a rhea is named Rhea",
        "SQL": "SELECT count(*) FROM animal WHERE name = 'Rhea'",
    }
    write_json(root / "bird/train/train.json", [training_record])
    return root
