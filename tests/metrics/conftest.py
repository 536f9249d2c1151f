"""A small benchmark on a real SQLite file, and the shared material where it is to be had."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from distilsql.data.benchmark import SqlBenchmark
from distilsql.data.example import Example
from distilsql.databases.database import Database
from distilsql.databases.schema import introspect

SHOP = """
CREATE TABLE shop (shop_id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT, staff INTEGER);
CREATE TABLE sale (sale_id INTEGER PRIMARY KEY, shop_id INTEGER NOT NULL REFERENCES shop (shop_id), amount REAL);
INSERT INTO shop VALUES (1, 'Corner', 'Ayr', 3), (2, 'Arcade', 'Leith', 5), (3, 'Kiosk', 'Ayr', 1);
INSERT INTO sale VALUES (1, 1, 9.5), (2, 2, 3.0), (3, 2, 4.0), (4, 3, 3.0);
"""
GOLDS = (
    "SELECT count(*) FROM shop",
    "SELECT name FROM shop WHERE city = 'Ayr'",
    "SELECT name, staff FROM shop ORDER BY staff DESC",
    "SELECT DISTINCT city FROM shop",
    "SELECT T1.name, sum(T2.amount) FROM shop AS T1 JOIN sale AS T2 ON T1.shop_id = T2.shop_id GROUP BY T1.shop_id",
    "SELECT name FROM shop WHERE staff > 100",
)


@pytest.fixture
def shop_file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SHOP)
    return path


@pytest.fixture
def shop(shop_file: Path) -> SqlBenchmark:
    return make_benchmark(shop_file, GOLDS)


@pytest.fixture
def bird_shop(shop_file: Path) -> SqlBenchmark:
    return make_benchmark(shop_file, GOLDS, evaluator="bird")


@pytest.fixture
def own_shop(tmp_path: Path) -> SqlBenchmark:
    """Own pairs whose names, texts and DISTINCT Spider's rewrites would change."""
    path = tmp_path / "own.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE shop_value (staff_value, city);"
            "INSERT INTO shop_value VALUES (1, 'Ayr'), (2, 'Leith'), (3, 'Ayr')"
        )
    golds = (
        "SELECT sum(staff_value) FROM shop_value",
        "SELECT DISTINCT city FROM shop_value ORDER\tBY city",
        "SELECT 'value', 1 FROM shop_value LIMIT 1",
    )
    return make_benchmark(path, golds, evaluator="plain")


def make_benchmark(path: Path, golds: tuple[str, ...], evaluator: str = "spider") -> SqlBenchmark:
    examples = tuple(
        Example(f"dev/{i}", "shop", f"Question {i}?", gold, difficulty="simple")
        for i, gold in enumerate(golds)
    )
    return SqlBenchmark("shop:dev", examples, {"shop": Database("shop", path, introspect(path))}, evaluator)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real benchmarks and predictions beside the repository."""
    path = Path(__file__).resolve().parents[3] / "shared"
    if not (path / "predictions").is_dir():
        pytest.skip(
            f"real predictions are not to be had: there is no folder {path.name}/ beside the repository"
        )
    return path
