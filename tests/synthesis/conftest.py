"""Databases as they are found: one with everything declared, and one that is ugly in every way."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

CITIES = ("Lisbon", "Porto", "Madrid", "Seville", "Lyon", "Nantes")
LAST_NAMES = ("Silva", "Costa", "Garcia", "Dubois", "Rossi", "Novak", "Weber", "Kovacs", "Larsen", "Moreau")


def make_shop(path: Path, orders: int = 240) -> Path:
    """Customers, orders, products and the lines between them; rows are the same each time."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """
            CREATE TABLE customers (customer_id INTEGER PRIMARY KEY, name TEXT, city TEXT, age INTEGER,
                is_member INTEGER, joined DATE);
            CREATE TABLE products (product_id INTEGER PRIMARY KEY, product_name TEXT, category TEXT, colour TEXT,
                city TEXT, price REAL);
            CREATE TABLE orders (order_id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customers (customer_id),
                ordered_on TEXT, status TEXT, amount REAL);
            CREATE TABLE order_lines (order_id INTEGER REFERENCES orders, product_id INTEGER REFERENCES products,
                quantity INTEGER, PRIMARY KEY (order_id, product_id));
            CREATE TABLE wishes (customer_id INTEGER REFERENCES customers, product_id INTEGER REFERENCES products);
            """
        )
        customers = [
            (n, f"{'ABCDEFGHIJKLMNOP'[n % 16]}. {LAST_NAMES[n % 10]}", CITIES[n * n % 6], 18 + n * 7 % 53, n % 3 == 0,
             f"{2015 + n % 6}-{1 + n % 12:02d}-{1 + n * 5 % 28:02d}")
            for n in range(1, 41)
        ]  # fmt: skip
        products = [
            (n, f"Lamp {n}", ("light", "wood", "metal")[n % 3], ("red", "blue")[n * n % 5 % 2], CITIES[n * n % 4],
             5.5 + n * 13 % 97)
            for n in range(1, 31)
        ]  # fmt: skip
        made = [
            (n, 1 + n * n % 37, f"{2019 + n % 4}-{1 + n % 12:02d}-{1 + n * 3 % 28:02d}",
             ("open", "paid", "sent", "returned")[n * n * n % 7 % 4], round(10 + n * 37 % 301 + n / 7, 2))
            for n in range(1, orders + 1)
        ]  # fmt: skip
        lines = [
            (o, 1 + (o * o + k * 7) % 30, 1 + (o + k) % 9)
            for o in range(1, orders + 1)
            for k in range(1 + o % 3)
        ]
        connection.executemany("INSERT INTO customers VALUES (?, ?, ?, ?, ?, ?)", customers)
        connection.executemany("INSERT INTO products VALUES (?, ?, ?, ?, ?, ?)", products)
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", made)
        connection.executemany("INSERT OR IGNORE INTO order_lines VALUES (?, ?, ?)", lines)
        wishes = [(1 + n % 31, 1 + n * n % 29) for n in range(70)]
        connection.executemany("INSERT INTO wishes VALUES (?, ?)", dict.fromkeys(wishes))
        connection.commit()
    return path


UGLY = r'''
CREATE TABLE "order" ("select" INTEGER PRIMARY KEY, "the ""group""" TEXT, "größe" REAL, [from] TEXT, cst_id INTEGER);
CREATE TABLE "cst tbl" (cst_id INTEGER, cst_nm_2 TEXT, "Straße" TEXT, since TEXT, stat_cd INTEGER);
CREATE TABLE leer (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE parts (a INTEGER, b INTEGER, label TEXT, PRIMARY KEY (a, b));
CREATE TABLE uses (a INTEGER, b INTEGER, amount INTEGER, FOREIGN KEY (a, b) REFERENCES parts (a, b));
CREATE VIEW big AS SELECT "select", "größe" FROM "order" WHERE "größe" > 20;
CREATE VIEW bigger AS SELECT * FROM big WHERE "größe" > 30;
CREATE VIEW "broken" AS SELECT * FROM gone;
'''


def make_ugly(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(UGLY)
        connection.executemany(
            'INSERT INTO "order" VALUES (?, ?, ?, ?, ?)',
            [
                (n, f"kind {n * n % 5}", 1.5 * n, f"{n:02d}/0{1 + n % 9}/2020", 100 + n * n % 19)
                for n in range(1, 61)
            ],
        )
        connection.executemany(
            'INSERT INTO "cst tbl" VALUES (?, ?, ?, ?, ?)',
            [
                (
                    100 + n,
                    f"{LAST_NAMES[n % 10]} {n}",
                    f"Weg {n % 4}",
                    f"20{10 + n % 9}-03-{1 + n:02d}",
                    n % 3,
                )
                for n in range(20)
            ],
        )
        connection.executemany(
            "INSERT INTO parts VALUES (?, ?, ?)", [(n // 5, n % 5, f"part {n}") for n in range(25)]
        )
        connection.executemany(
            "INSERT INTO uses VALUES (?, ?, ?)", [(n % 5, n * n % 5, n * 3 % 50) for n in range(80)]
        )
        connection.commit()
    return path


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shop(tmp_path_factory.mktemp("shop") / "shop.sqlite")


@pytest.fixture(scope="session")
def ugly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ugly(tmp_path_factory.mktemp("ugly") / "ugly.sqlite")
